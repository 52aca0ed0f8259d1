"""Parameter names: ours (those of PaddleNLP's BertModel) and Transformers', and which matrices are transposed between them."""

from __future__ import annotations

import re

_TO_HF = (
    (r"^bert\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.", r"bert.encoder.layer.\1.attention.self.\2."),
    (r"^bert\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"bert.encoder.layer.\1.attention.output.dense."),
    (r"^bert\.encoder\.layers\.(\d+)\.linear1\.", r"bert.encoder.layer.\1.intermediate.dense."),
    (r"^bert\.encoder\.layers\.(\d+)\.linear2\.", r"bert.encoder.layer.\1.output.dense."),
    (r"^bert\.encoder\.layers\.(\d+)\.norm1\.", r"bert.encoder.layer.\1.attention.output.LayerNorm."),
    (r"^bert\.encoder\.layers\.(\d+)\.norm2\.", r"bert.encoder.layer.\1.output.LayerNorm."),
    (r"^bert\.embeddings\.layer_norm\.", "bert.embeddings.LayerNorm."),
    (r"^cls\.predictions\.transform\.", "cls.predictions.transform.dense."),
    (r"^cls\.predictions\.layer_norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^cls\.predictions\.decoder_bias$", "cls.predictions.bias"),
)
_PROJECTIONS = {"q": "query", "k": "key", "v": "value"}
_FROM_HF = (
    (
        r"^bert\.encoder\.layer\.(\d+)\.attention\.self\.([qkv])(?:uery|ey|alue)\.",
        r"bert.encoder.layers.\1.self_attn.\2_proj.",
    ),
    (r"^bert\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"bert.encoder.layers.\1.self_attn.out_proj."),
    (r"^bert\.encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"bert.encoder.layers.\1.norm1."),
    (r"^bert\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r"bert.encoder.layers.\1.linear1."),
    (r"^bert\.encoder\.layer\.(\d+)\.output\.dense\.", r"bert.encoder.layers.\1.linear2."),
    (r"^bert\.encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"bert.encoder.layers.\1.norm2."),
    (r"^bert\.embeddings\.LayerNorm\.", "bert.embeddings.layer_norm."),
    (r"^cls\.predictions\.transform\.dense\.", "cls.predictions.transform."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "cls.predictions.layer_norm."),
    (r"^cls\.predictions\.bias$", "cls.predictions.decoder_bias"),
)
_HEAD = re.compile(r"^(cls\.|classifier\.|classifiers\.|fractions\.|qa_outputs\.|bert\.pooler\.)")
_CLASSIFIER = re.compile(r"^(classifier|classifiers\.[^.]+|fractions)\.")
_DERIVED = re.compile(r"((position|token_type)_ids$|^cls\.predictions\.decoder([._]weight|\.bias)$)")
_EMBEDDING = re.compile(r"_embeddings\.weight$")


def to_hf(name: str) -> str:
    """Transformers' name of one of our parameters."""
    for pattern, replacement in _TO_HF:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return re.sub(r"\.self\.([qkv])\.", lambda match: f".self.{_PROJECTIONS[match[1]]}.", name)


def from_hf(name: str) -> str:
    """Our name of a Transformers parameter; accepts names without the `bert.` prefix and the old gamma/beta of LayerNorm."""
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    for pattern, replacement in _FROM_HF:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def is_head(name: str) -> bool:
    """Whether a parameter (our name) belongs to a head, which may be new or left unused: pooler, MLM, NSP, classifiers, answers."""
    return bool(_HEAD.match(name))


def classifier_part(name: str) -> str | None:
    """Which part of a classifier a parameter (our name) belongs to: `classifier`, `classifiers.NAME` of a multi-task model, or
    `fractions`, what combines fractions. None: to none."""
    match = _CLASSIFIER.match(name)
    return None if match is None else match[1]


def is_derived(name: str) -> bool:
    """Whether a stored tensor repeats another (tied decoder) or is a constant (position ids)."""
    return bool(_DERIVED.search(name))


def is_transposed(name: str, num_dimensions: int) -> bool:
    """Whether a matrix is stored [out, in] by Transformers and [in, out] by Paddle: every linear layer's, no embedding's."""
    return num_dimensions == 2 and name.endswith(".weight") and not _EMBEDDING.search(name)
