"""A tiny BERT and tiny learnable data, written from scratch: names and layouts stand here by hand, not taken from the code under test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

FILLERS = [f"filler{number}" for number in range(20)]
CLASSES = ("HUM", "LOC", "NUM")
TOPICS = {name: [f"{name.lower()}{number}" for number in range(6)] for name in CLASSES}
WORDS = [*FILLERS, *(word for words in TOPICS.values() for word in words)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ".", "##s", "##ing"]
HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 2, 64, 64
CONFIG = {
    "architectures": ["BertForPreTraining"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": len(VOCABULARY),
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def hf_shapes(num_classes: int | None = None, pretraining: bool = False) -> dict[str, tuple[int, ...]]:
    """Transformers' names and shapes of the tiny BERT with pooler: linear layers are [out, in]."""
    h, v = HIDDEN, len(VOCABULARY)
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (v, h),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, h),
        "bert.embeddings.token_type_embeddings.weight": (2, h),
        "bert.embeddings.LayerNorm.weight": (h,),
        "bert.embeddings.LayerNorm.bias": (h,),
        "bert.pooler.dense.weight": (h, h),
        "bert.pooler.dense.bias": (h,),
    }
    for layer in range(LAYERS):
        base = f"bert.encoder.layer.{layer}"
        sizes = {
            "attention.self.query": (h, h),
            "attention.self.key": (h, h),
            "attention.self.value": (h, h),
            "attention.output.dense": (h, h),
            "intermediate.dense": (INNER, h),
            "output.dense": (h, INNER),
        }
        for name, shape in sizes.items():
            shapes[f"{base}.{name}.weight"] = shape
            shapes[f"{base}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{base}.{name}.weight"] = (h,)
            shapes[f"{base}.{name}.bias"] = (h,)
    if num_classes is not None:
        shapes |= {"classifier.weight": (num_classes, h), "classifier.bias": (num_classes,)}
    if pretraining:
        shapes |= {
            "cls.predictions.transform.dense.weight": (h, h),
            "cls.predictions.transform.dense.bias": (h,),
            "cls.predictions.transform.LayerNorm.weight": (h,),
            "cls.predictions.transform.LayerNorm.bias": (h,),
            "cls.predictions.bias": (v,),
            "cls.seq_relationship.weight": (2, h),
            "cls.seq_relationship.bias": (2,),
        }
    return shapes


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors, large enough that every one of them matters; LayerNorm weights near 1."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0.0, 0.1, shape) + (1.0 if name.endswith("LayerNorm.weight") else 0.0)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_bert(folder: Path, seed: int = 0, pretraining: bool = True) -> Path:
    """A Hugging Face folder of the tiny BERT with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    save_file(random_tensors(hf_shapes(pretraining=pretraining), seed), str(folder / "model.safetensors"))
    return folder


def write_tsv(path: Path, num_rows: int, seed: int, classes: Sequence[str] = CLASSES) -> None:
    """Rows of 3 to 12 words with a label that two of the words give away; every class occurs."""
    rng = np.random.default_rng(seed)
    lines = ["text\tlabel"]
    for row in range(num_rows):
        name = classes[row % len(classes)]
        words = [*rng.choice(FILLERS, rng.integers(1, 11)), *rng.choice(TOPICS[name], 2)]
        lines.append(f"{' '.join(rng.permutation(words))}\t{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_corpus(path: Path, num_documents: int, seed: int) -> None:
    """Documents of 2 to 6 sentences of 2 to 14 words, one sentence per line; the words of a document share a topic."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(num_documents):
        words = [*FILLERS[:8], *TOPICS[CLASSES[rng.integers(len(CLASSES))]]]
        sizes = rng.integers(2, 15, rng.integers(2, 7))
        documents.append("\n".join(" ".join(rng.choice(words, size)) + " ." for size in sizes))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(documents) + "\n")
