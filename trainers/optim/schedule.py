"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.schema import StageBase


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a decay that ends at `total_steps`.

    `bert_adam` is the original code's: it goes down from 1 at step 0, whatever the warm-up, so that it drops where the warm-up ends.
    """

    kind: str
    peak: float
    total_steps: int
    warmup_steps: float
    """Whole steps; `bert_adam` alone counts fractions of a step too, as the original code does."""
    power: float = 1.0

    def __call__(self, step: int) -> float:
        """Learning rate of the optimizer step numbered `step` (0-based); 0 from `total_steps` on, except constant."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.kind == "constant":
            return self.peak
        if self.kind == "bert_adam":
            return self.peak * max(0.0, 1.0 - step / self.total_steps)
        span = max(1, self.total_steps - self.warmup_steps)
        left = max(0.0, (self.total_steps - step) / span)
        if self.kind == "cosine":
            return self.peak * 0.5 * (1.0 - math.cos(math.pi * left))
        return self.peak * (left if self.kind == "linear" else left**self.power)


def warmup_steps(warmup: int | float, total_steps: int) -> int:
    """Whole steps of warm-up: a number of steps, or floor(proportion * total_steps) as in PaddleNLP (paper.md section 6)."""
    return warmup if isinstance(warmup, int) else math.floor(warmup * total_steps)


def make_schedule(stage: StageBase, total_steps: int) -> Schedule:
    """The schedule that a stage's config asks for."""
    whole = warmup_steps(stage.warmup, total_steps)
    exact = stage.warmup if isinstance(stage.warmup, int) else stage.warmup * total_steps
    warmup = exact if stage.schedule == "bert_adam" else whole
    return Schedule(stage.schedule, stage.lr, total_steps, warmup, stage.poly_power)
