"""`align_mutations.py DIRECTORY NAME ...`: this side of the alignment with one thing broken, against a reference computed before.

Prints one JSON line per mutation: its name and the keys of the rows that fail in the section it is about. The mutation `none` breaks
nothing and covers every section.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import paddle
import sklearn.metrics
from paddle.nn import functional

from configs import rates
from trainers.align import settings
from trainers.align.alignment import compare, sections
from trainers.data import sequences, truncate
from trainers.data.instances import InstancePlan
from trainers.data.tokenize import Tokenizer
from trainers.engine.loop import TrainingLoop
from trainers.engine.ranks import tune_device
from trainers.model import batch, encoder, heads, linear, pooling
from trainers.optim import adamw, clip, groups, schedule
from trainers.tasks.pretrain import MaskedBatch, PretrainTask

TEXT, RATES, FINETUNING, PRETRAINING = "text", "rates", "random12 fine-tuning", "random12 pre-training"
ORIGINAL, FROZEN, HIERARCHICAL = (
    f"{settings.RANDOM} {variant}" for variant in (settings.ORIGINAL, settings.FROZEN, settings.HIERARCHICAL)
)
Patches = list[Any]
MUTATIONS: dict[str, tuple[str, tuple[str, ...], Callable[[], Patches]]] = {}
"""Name: (section, keys of the rows that must fail, the patches)."""


def mutation(name: str, section: str, *rows: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTATIONS[name] = (section, rows, make)
        return make

    return register


def everywhere(old: Any, new: Any) -> Patches:
    """Replace a function in every module of the project that holds it."""
    name = old.__name__
    holders = [
        m
        for key, m in sys.modules.items()
        if key.startswith(("trainers.", "configs.")) and getattr(m, name, None) is old
    ]
    assert holders
    return [patch.object(module, name, new) for module in holders]


# Text -------------------------------------------------------------------------------------------------------------------


@mutation("case is kept instead of lowered", TEXT, "ids lower-cased")
def _() -> Patches:
    original = Tokenizer.__init__
    return [patch.object(Tokenizer, "__init__", lambda self, vocabulary, lower_case: original(self, vocabulary, False))]


@mutation("accents are kept when lower-casing", TEXT, "ids lower-cased")
def _() -> Patches:
    from tokenizers import normalizers

    original = normalizers.BertNormalizer
    return [
        patch.object(normalizers, "BertNormalizer", lambda **options: original(**{**options, "strip_accents": False}))
    ]


@mutation("head of head + tail one token longer", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single

    def cut(ids: np.ndarray, max_length: int, head: int | None, tail: int | None) -> np.ndarray:
        return original(ids, max_length, head + 1 if head is not None else None, tail)

    return everywhere(original, cut)


@mutation("tail starts one token early", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single

    def cut(ids: np.ndarray, max_length: int, head: int | None, tail: int | None) -> np.ndarray:
        return original(ids[:-1] if len(ids) > max_length - 2 else ids, max_length, head, tail)

    return everywhere(original, cut)


@mutation("limit one token too low", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single
    return everywhere(original, lambda ids, limit, head, tail: original(ids, limit - 1, head, tail))


@mutation("of equal texts of a pair the first loses", TEXT, "pairs")
def _() -> Patches:
    original = truncate.pair_lengths
    return everywhere(original, lambda a, b, room: original(b, a, room)[::-1])


# Learning rates ---------------------------------------------------------------------------------------------------------


@mutation("layer decay with exponent N - i", RATES, "rates linear", "rates no warm-up", "rates cosine")
def _() -> Patches:
    original = rates._block_multiples
    return everywhere(
        original, lambda stage, num_blocks: tuple(each * stage.layer_decay for each in original(stage, num_blocks))
    )


@mutation("fourth block in the middle third", RATES, "rates rate bands")
def _() -> Patches:
    original = rates._block_multiples

    def multiples(stage: Any, num_blocks: int) -> tuple[float, ...]:
        found = original(stage, num_blocks)
        return found if stage.rate_bands is None else (*found[:3], 1.0, *found[4:])

    return everywhere(original, multiples)


@mutation("layer rates from the top", RATES, "rates layer rates")
def _() -> Patches:
    original = rates._block_multiples

    def multiples(stage: Any, num_blocks: int) -> tuple[float, ...]:
        found = original(stage, num_blocks)
        return found if stage.layer_rates is None else found[::-1]

    return everywhere(original, multiples)


@mutation(
    "decayed embeddings with exponent N - 1",
    RATES,
    "rates decayed embeddings",
    "rates decayed embeddings, plain rate",
)
def _() -> Patches:
    original = rates.rate_multiples

    def multiples(stage: Any, num_blocks: int) -> rates.RateMultiples:
        found = original(stage, num_blocks)
        if not stage.decay_embeddings:
            return found
        return dataclasses.replace(found, embeddings=stage.layer_decay ** (num_blocks - 1))

    return everywhere(original, multiples)


@mutation("plain rate on the embeddings only", RATES, "rates plain rate", "rates decayed embeddings, plain rate")
def _() -> Patches:
    original = rates.rate_multiples
    return everywhere(original, lambda stage, num_blocks: dataclasses.replace(original(stage, num_blocks), plain=1.0))


@mutation("bert_adam's decay begins at 1 where the warm-up ends", RATES, "rates bert_adam")
def _() -> Patches:
    original = schedule.Schedule.__call__

    def rate(self: Any, step: int) -> float:
        stretched = self.kind == "bert_adam" and step >= self.warmup_steps
        return original(self, step) / (1.0 - self.warmup_steps / self.total_steps if stretched else 1.0)

    return [patch.object(schedule.Schedule, "__call__", rate)]


@mutation("bert_adam's warm-up in whole steps", RATES, "rates bert_adam")
def _() -> Patches:
    original = schedule.make_schedule

    def make(stage: Any, total: int) -> schedule.Schedule:
        made = original(stage, total)
        return dataclasses.replace(made, warmup_steps=int(made.warmup_steps))

    return everywhere(original, make)


@mutation("biases decay", RATES, "decay")
def _() -> Patches:
    original = groups.decays
    return everywhere(original, lambda name: original(name) or name.endswith("bias"))


@mutation("warm-up one step ahead", RATES, "rates linear", "rates cosine", "rates constant", "rates polynomial")
def _() -> Patches:
    original = schedule.Schedule.__call__
    return [patch.object(schedule.Schedule, "__call__", lambda self, step: original(self, step + 1))]


@mutation("warm-up rounded up", RATES, "rates linear")
def _() -> Patches:
    original = schedule.warmup_steps
    return everywhere(
        original, lambda warmup, total: warmup if isinstance(warmup, int) else original(warmup, total) + 1
    )


# Model ------------------------------------------------------------------------------------------------------------------


@mutation("padding is not masked", PRETRAINING, "states", "mlm logits")
def _() -> Patches:
    return [patch.object(batch, "MASKED", 0.0)]


@mutation("LayerNorm eps 1e-5", PRETRAINING, "embeddings")
def _() -> Patches:
    original = paddle.nn.LayerNorm
    return [patch.object(paddle.nn, "LayerNorm", lambda size, epsilon: original(size, epsilon=1e-5))]


@mutation("GELU by tanh", PRETRAINING, "states")
def _() -> Patches:
    return [patch.object(functional, "gelu", functools.partial(functional.gelu, approximate=True))]


@mutation("scores divided by the root of the hidden size", PRETRAINING, "states")
def _() -> Patches:
    original = encoder.SelfAttention.__init__

    def init(self: Any, config: Any) -> None:
        original(self, config)
        self.q_proj.register_forward_post_hook(lambda layer, given, result: result * config.num_heads**-0.5)

    return [patch.object(encoder.SelfAttention, "__init__", init)]


@mutation("positions start at 1", PRETRAINING, "embeddings")
def _() -> Patches:
    original = encoder.Embeddings.forward

    def forward(self: Any, tokens: Any) -> Any:
        moved = batch.TokenBatch(tokens.ids_T, tokens.types_T, tokens.positions_T + 1, tokens.layout)
        return original(self, moved)

    return [patch.object(encoder.Embeddings, "forward", forward)]


@mutation("pooler without tanh", PRETRAINING, "pooled", "nsp logits")
def _() -> Patches:
    return [patch.object(encoder.Pooler, "forward", lambda self, cls_BH: self.dense(cls_BH))]


@mutation("no bias on the tied decoder", PRETRAINING, "mlm logits", "gradients")
def _() -> Patches:
    original = heads.LMPredictionHead.forward
    return [patch.object(heads.LMPredictionHead, "forward", lambda self, x: original(self, x) - self.decoder_bias)]


@mutation("classifier reads the block before", FINETUNING, "logits")
def _() -> Patches:
    original = encoder.Encoder.forward
    features = heads.BertForClassification.features

    def shifted(self: Any, tokens: Any) -> Any:
        if self.blocks is None:
            return features(self, tokens)
        with patch.object(encoder.Encoder, "forward", lambda own, x, layout: [x, *original(own, x, layout)[:-1]]):
            return features(self, tokens)

    return [patch.object(heads.BertForClassification, "features", shifted)]


@mutation("gradient of a bias is a mean over tokens", PRETRAINING, "gradients")
def _() -> Patches:
    original = linear._ProductWithBias.backward

    def backward(ctx: Any, grad_NO: Any) -> Any:
        grad_x, grad_weight, grad_bias = original(ctx, grad_NO)
        return grad_x, grad_weight, grad_bias / grad_NO.shape[0]

    return [patch.object(linear._ProductWithBias, "backward", staticmethod(backward))]


# Losses and steps -------------------------------------------------------------------------------------------------------


@mutation("next-sentence labels reversed", PRETRAINING, "token layout", "loss")
def _() -> Patches:
    original = InstancePlan.gather

    def gather(self: Any, items: np.ndarray) -> Any:
        ids, types, offsets, labels = original(self, items)
        return ids, types, offsets, 1 - labels

    return [patch.object(InstancePlan, "gather", gather)]


@mutation("padded mask slots count in the loss", PRETRAINING, "loss", "gradients")
def _() -> Patches:
    slots = property(lambda self: (20.0 * self.tokens.layout.num_sequences, 1.0 * self.tokens.layout.num_sequences))
    return [patch.object(MaskedBatch, "counts", slots)]


@mutation("mean of the micro-batches' means", PRETRAINING, "loss", "gradients")
def _() -> Patches:
    losses = PretrainTask.losses

    def means(self: Any, model: Any, part: Any) -> Any:
        return [term / count for term, count in zip(losses(self, model, part), part.counts, strict=True)]

    agree: Any = lambda self, parts: np.full(2, float(len(parts)))  # noqa: E731
    return [patch.object(PretrainTask, "losses", means), patch.object(TrainingLoop, "_agree", agree)]


@mutation("no clipping", PRETRAINING, "weights 10")
def _() -> Patches:
    return everywhere(clip.scale_gradients, lambda parameters, norm, limit: None)


def changed_adamw(**changes: Any) -> Patches:
    original = paddle.optimizer.AdamW
    return [patch.object(paddle.optimizer, "AdamW", lambda **options: original(**{**options, **changes}))]


@mutation("AdamW beta1 0.9 instead of 0.8", PRETRAINING, "weights 10")
def _() -> Patches:
    return changed_adamw(beta1=0.9)


@mutation("AdamW beta2 0.999 instead of 0.99", PRETRAINING, "weights 10")
def _() -> Patches:
    return changed_adamw(beta2=0.999)


@mutation("AdamW eps 1e-8 instead of 1e-6", PRETRAINING, "weights 2", "weights 10")
def _() -> Patches:
    return changed_adamw(epsilon=1e-8)


@mutation("biases decay in the steps", PRETRAINING, "weights 10")
def _() -> Patches:
    return MUTATIONS["biases decay"][2]()


@mutation("warm-up one step ahead in the steps", PRETRAINING, "weights 2", "weights 10")
def _() -> Patches:
    return MUTATIONS["warm-up one step ahead"][2]()


@mutation("layer decay with exponent N - i in the steps", FINETUNING, "weights 1", "weights 10")
def _() -> Patches:
    return MUTATIONS["layer decay with exponent N - i"][2]()


@mutation("macro-F1 is a micro average", FINETUNING, "evaluation")
def _() -> Patches:
    original = sklearn.metrics.f1_score
    return [patch.object(sklearn.metrics, "f1_score", lambda *given, **options: original(*given, average="micro"))]


# Options ----------------------------------------------------------------------------------------------------------------


@mutation("bias correction left on", ORIGINAL, "weights 2", "weights 10")
def _() -> Patches:
    return [patch.object(adamw, "UncorrectedAdamW", paddle.optimizer.AdamW)]


@mutation("clipping by the global norm instead of each parameter's", ORIGINAL, "weights 10")
def _() -> Patches:
    def clip_all(parameters: Any, limit: float) -> None:
        given = list(parameters)
        clip.scale_gradients(given, float(clip.global_norm(given)), limit)

    return everywhere(clip.clip_each, clip_all)


@mutation("bert_adam's decay begins at 1 in the steps", ORIGINAL, "weights 10")
def _() -> Patches:
    return MUTATIONS["bert_adam's decay begins at 1 where the warm-up ends"][2]()


@mutation("embeddings are trained although the encoder is frozen", FROZEN, "frozen", "gradients")
def _() -> Patches:
    original = rates.frozen_parts
    return everywhere(
        original, lambda stage, num_blocks: dataclasses.replace(original(stage, num_blocks), embeddings=False)
    )


@mutation("the pooler is frozen with the encoder", FROZEN, "frozen", "gradients", "weights 10")
def _() -> Patches:
    original = groups.make_groups

    def make(*given: Any) -> list[groups.Group]:
        return [
            dataclasses.replace(group, names=tuple(name for name in group.names if "pooler" not in name))
            for group in original(*given)
        ]

    return everywhere(original, make)


@mutation("a token is lost between fractions", HIERARCHICAL, "token layout", "logits mean")
def _() -> Patches:
    original = sequences.fractions
    return everywhere(
        original,
        lambda ids, max_length, most: [
            piece[1:] if len(piece) > 1 else piece for piece in original(ids, max_length, most)
        ],
    )


@mutation("sum of the fractions instead of their mean", HIERARCHICAL, "logits mean")
def _() -> Patches:
    original = pooling.mean_pool

    def sums(x_NW: Any, layout: Any) -> Any:
        return original(x_NW, layout) * paddle.to_tensor(layout.lengths, dtype="float32").unsqueeze(1)

    return everywhere(original, sums)


@mutation("largest value over the padding of fractions too", HIERARCHICAL, "logits max")
def _() -> Patches:
    return everywhere(pooling.max_pool, lambda x_NW, layout: pooling.to_cells(x_NW, layout).max(axis=1))


@mutation("attention over fractions without tanh", HIERARCHICAL, "logits attention", "gradients", "weights 10")
def _() -> Patches:
    return attention(lambda self, x_NW: paddle.matmul(self.dense(x_NW), self.context), masked=True)


@mutation("attention over the padding of fractions too", HIERARCHICAL, "logits attention")
def _() -> Patches:
    return attention(lambda self, x_NW: paddle.matmul(paddle.tanh(self.dense(x_NW)), self.context), masked=False)


def attention(scores: Callable[[Any, Any], Any], masked: bool) -> Patches:
    def weights(self: Any, x_NW: Any, layout: Any) -> Any:
        scores_G1S = pooling.to_cells(scores(self, x_NW), layout).transpose([0, 2, 1])
        return functional.softmax(
            scores_G1S + layout.key_mask_BS if masked and layout.key_mask_BS is not None else scores_G1S
        )

    return [patch.object(pooling.AttentionPooling, "weights", weights)]


# The run ----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def applied(patches: Patches) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


def failing_rows(directory: Path, inputs: dict[str, Any], names: set[str]) -> list[str]:
    """Keys of the failing rows of the named sections, each with its worst item."""
    failed = []
    for section in sections(directory, inputs):
        if section.name in names:
            results = compare(directory, section, section.compute())
            failed += [result.row.prefix for result in results if result.status != "pass"]
    return failed


def main(directory: Path, names: list[str]) -> None:
    tune_device()
    inputs = json.loads((directory / "inputs.json").read_text())
    for name in names:
        if name == "none":
            failed = failing_rows(
                directory, inputs, {TEXT, RATES, FINETUNING, PRETRAINING, ORIGINAL, FROZEN, HIERARCHICAL}
            )
        else:
            section, _, make = MUTATIONS[name]
            with applied(make()):
                failed = failing_rows(directory, inputs, {section})
        print(json.dumps({"name": name, "failed": failed}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
