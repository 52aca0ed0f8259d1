"""Mistakes in options: layer-wise rates, the original code's optimizer, frozen parts, fractions of long texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import paddle
from paddle.nn import functional

from configs import rates
from tests.fakes.align_registry import (
    FROZEN,
    HIERARCHICAL,
    MUTATIONS,
    ORIGINAL,
    RATES,
    Patches,
    everywhere,
    mutation,
)
from trainers.data import sequences
from trainers.model import pooling
from trainers.optim import adamw, clip, groups, schedule

# Learning rates ---------------------------------------------------------------------------------------------------------


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


# Training and fractions -------------------------------------------------------------------------------------------------


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
