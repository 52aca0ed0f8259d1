"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.schema import StageBase


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a decay that ends at `total_steps`."""

    kind: str
    peak: float
    total_steps: int
    warmup_steps: int
    power: float = 1.0

    def __call__(self, step: int) -> float:
        """Learning rate of the optimizer step numbered `step` (0-based); 0 from `total_steps` on, except constant."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        if self.kind == "constant":
            return self.peak
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
    return Schedule(stage.schedule, stage.lr, total_steps, warmup_steps(stage.warmup, total_steps), stage.poly_power)
