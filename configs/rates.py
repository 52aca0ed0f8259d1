"""Which part of a model learns how fast, and which not at all: one arithmetic for the plan and for training.

Layer-wise rates after Sun et al. 2019, section 5.3.3, and the authors' code, whose embeddings, pooler and classifier keep a plain rate
of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.stages import ClassifierStage, StageBase


@dataclass(frozen=True)
class RateMultiples:
    """Multiples of the stage's scheduled learning rate."""

    embeddings: float
    blocks: tuple[float, ...]
    """One per encoder block, the lowest first."""
    plain: float
    """Pooler and heads."""


def rate_multiples(stage: StageBase, num_blocks: int) -> RateMultiples:
    """The multiples that a stage asks for; all 1 where it has no layer-wise rates.

    Block i of N: layer_decay^(N-1-i); or its own of layer_rates (N of them); or 1/f, 1, f in third floor(3i/N) of rate_bands: f.
    """
    if not isinstance(stage, ClassifierStage):
        return RateMultiples(1.0, (1.0,) * num_blocks, 1.0)
    plain = 1.0 if stage.plain_rate is None else stage.plain_rate / stage.lr
    embeddings = stage.layer_decay**num_blocks if stage.decay_embeddings else plain
    return RateMultiples(embeddings, _block_multiples(stage, num_blocks), plain)


def _block_multiples(stage: ClassifierStage, num_blocks: int) -> tuple[float, ...]:
    if stage.layer_rates is not None:
        return tuple(rate / stage.lr for rate in stage.layer_rates)
    if stage.rate_bands is not None:
        thirds = (1.0 / stage.rate_bands, 1.0, stage.rate_bands)
        return tuple(thirds[3 * block // num_blocks] for block in range(num_blocks))
    return tuple(stage.layer_decay ** (num_blocks - 1 - block) for block in range(num_blocks))


@dataclass(frozen=True)
class Frozen:
    """What a stage does not train."""

    embeddings: bool
    num_blocks: int
    """The first so many encoder blocks."""


def frozen_parts(stage: StageBase, num_blocks: int) -> Frozen:
    """What a stage does not train of a model with `num_blocks` encoder blocks; pooler and heads always are trained."""
    if not isinstance(stage, ClassifierStage) or stage.freeze == "none":
        return Frozen(False, 0)
    if stage.freeze == "embeddings":
        return Frozen(True, 0)
    return Frozen(True, num_blocks if stage.freeze == "encoder" else stage.freeze)
