"""What both sides are told to compute: the cases, their stages and the schedules. Numbers are chosen so that every rule shows.

Learning rates, weight decay and layer decay are far above the paper's: with 2e-5 and 0.01 one step moves a float32 weight by a few
units in its last place, and an error in the decay would drown in rounding. Clipping cuts at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.schema import FinetuneStage, PretrainStage
from configs.stages import Truncation
from trainers.model.config import BertConfig

RANDOM = "random12"
ORIGINAL = "original optimizer"
FROZEN = "frozen encoder"
HIERARCHICAL = "hierarchical"
FRACTION_KINDS: tuple[Literal["mean", "max", "attention"], ...] = ("mean", "max", "attention")
NUM_BLOCKS = 12
NUM_CLASSES = 4
BATCH = 6
TOTAL_STEPS = 12
TRAINED_STEPS = 10
SEED = 11
HEADS: dict[str, dict[str, Any]] = {
    "first block": {"blocks": [0], "pooling": "concat"},
    "last block": {"blocks": [-1], "pooling": "concat"},
    "last 4, concat": {"blocks": [-4, -3, -2, -1], "pooling": "concat"},
    "last 4, mean": {"blocks": [-4, -3, -2, -1], "pooling": "mean"},
    "last 4, max": {"blocks": [-4, -3, -2, -1], "pooling": "max"},
    "first 4, mean": {"blocks": [0, 1, 2, 3], "pooling": "mean"},
    "all, concat": {"blocks": None, "pooling": "concat"},
}
"""Ways to feed the classifier besides the pooler; negative blocks count from the last, None is all of them."""


@dataclass(frozen=True)
class CaseSettings:
    """One set of weights with its two stages and the lengths of its texts in words."""

    name: str
    finetune: FinetuneStage
    pretrain: PretrainStage
    text_words: tuple[int, ...]
    """The long one stands where the order of the first epoch (SEED) puts it into the first batch and not into the second."""
    pair_words: tuple[int, ...] | None
    """None: single texts."""
    variants: Mapping[str, FinetuneStage]
    """Further fine-tunings of the same weights and texts by name, each with options of its own (rows.VARIANT_ROWS)."""


COMMON: dict[str, Any] = {
    "batch": BATCH,
    "max_steps": TOTAL_STEPS,
    "weight_decay": 0.2,
    "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "adam_eps": 1e-6,
    "dropout": 0.0,
}


def random_case() -> CaseSettings:
    """Twelve random blocks on single texts, one of them above 512 tokens and cut to the first 128 and the last 382."""
    return CaseSettings(
        RANDOM,
        FinetuneStage(
            task="finetune",
            max_length=512,
            truncation=Truncation(head=128),
            lr=5e-4,
            warmup=0,
            layer_decay=0.8,
            clip=0.1,
            micro_batch=2,
            **COMMON,
        ),
        PretrainStage(task="pretrain", max_length=64, lr=5e-4, warmup=3, clip=0.2, micro_batch=4, **COMMON),
        (3, 20, 700, 9, 41, 1, 13, 30, 7, 25, 16, 21, 5, 38, 11, 2, 19, 33),
        None,
        _variants(),
    )


def _variants() -> dict[str, FinetuneStage]:
    """Short sequences: what these options change does not depend on the length.

    The original optimizer's warm-up ends within a step, and its limit lies between the gradient norms of single parameters. The bias of
    a key has a gradient of 0 but for rounding; clipped by itself it is not scaled down with the others, hence a larger eps.
    """
    shared: dict[str, Any] = {"task": "finetune", "max_length": 32, "micro_batch": 2, **COMMON}
    original: dict[str, Any] = {"schedule": "bert_adam", "bias_correction": False, "clip_per_parameter": True}
    original = {**shared, **original, "adam_eps": 1e-5}
    return {
        ORIGINAL: FinetuneStage(lr=5e-4, plain_rate=1e-3, layer_decay=0.8, warmup=0.2, clip=0.15, **original),
        FROZEN: FinetuneStage(lr=2e-3, freeze="encoder", warmup=0, clip=0.1, **shared),
        HIERARCHICAL: FinetuneStage(lr=5e-4, hierarchical="attention", warmup=0, clip=0.1, **shared),
    }


def pretrained_case(name: str) -> CaseSettings:
    """Real weights on pairs of texts, one of them at the full 512 tokens."""
    return CaseSettings(
        name,
        FinetuneStage(
            task="finetune", max_length=512, lr=2e-4, warmup=0, layer_decay=0.8, clip=0.1, micro_batch=2, **COMMON
        ),
        PretrainStage(task="pretrain", max_length=64, lr=2e-4, warmup=3, clip=0.2, micro_batch=4, **COMMON),
        (12, 30, 450, 5, 8, 22, 17, 3, 40, 9, 26, 14, 6),
        (20, 7, 300, 15, 30, 4, 9, 26, 12, 33, 5, 18, 8),
        {},
    )


def compared_steps(stage: FinetuneStage | PretrainStage) -> list[int]:
    """After which steps weights are compared: the first that moves them (the rate of step 1 of a warm-up is 0), and the last."""
    return [1 if stage.warmup == 0 else 2, TRAINED_STEPS]


BASE_RATES = {"lr": 2e-5, "layer_decay": 0.95, "weight_decay": 0.01}
NO_DECAY = {"lr": 2e-5, "weight_decay": 0.01, "schedule": "linear", "warmup": 3, "max_steps": 20}
RATE_SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {**BASE_RATES, "schedule": "linear", "warmup": 0.1, "max_steps": 57},
    "no warm-up": {**BASE_RATES, "schedule": "linear", "warmup": 0, "max_steps": 20},
    "cosine": {**BASE_RATES, "schedule": "cosine", "warmup": 6, "max_steps": 40},
    "constant": {**BASE_RATES, "schedule": "constant", "warmup": 4, "max_steps": 20},
    "polynomial": {**BASE_RATES, "schedule": "poly", "warmup": 5, "max_steps": 40, "poly_power": 2.0},
    "bert_adam": {**BASE_RATES, "schedule": "bert_adam", "warmup": 0.1, "max_steps": 57},
    "layer rates": {**NO_DECAY, "layer_rates": tuple((3 + 7 * block % 12) * 1e-6 for block in range(NUM_BLOCKS))},
    "rate bands": {**NO_DECAY, "rate_bands": 2.6},
    "decayed embeddings": {**NO_DECAY, "layer_decay": 0.95, "decay_embeddings": True},
    "plain rate": {**NO_DECAY, "layer_decay": 0.95, "plain_rate": 5e-5},
    "decayed embeddings, plain rate": {**NO_DECAY, "layer_decay": 0.9, "decay_embeddings": True, "plain_rate": 1e-4},
}
"""Options whose learning rate is compared at every step and for every parameter of a model of NUM_BLOCKS blocks: the paper's 2e-5, 0.95
and 2.6."""
CUTS: dict[str, dict[str, int | None]] = {
    "head 510": {"max_length": 512, "head": None, "tail": None},
    "head 128 + tail 382": {"max_length": 512, "head": 128, "tail": None},
    "tail 382 + head 128": {"max_length": 512, "head": None, "tail": 382},
    "tail 510": {"max_length": 512, "head": 0, "tail": None},
    "half and half of 64": {"max_length": 64, "head": 31, "tail": None},
}
SHORT_LENGTHS = (61, 62, 63, 64)
PAIR_LENGTHS = ((30, 31), (31, 31), (40, 40), (61, 1), (5, 90), (90, 5), (33, 29), (29, 33), (200, 200))


def rate_stage(settings: dict[str, Any]) -> FinetuneStage:
    """The stage of one entry of RATE_SETTINGS."""
    return FinetuneStage(task="finetune", **settings)


def rate_model() -> BertConfig:
    """The smallest model that has every parameter of one with NUM_BLOCKS blocks."""
    return BertConfig(8, 4, NUM_BLOCKS, 1, 4, 8, 2)
