"""Where a stage stands: the plain values that a checkpoint carries beside tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from configs.schema import EarlyStopping


@dataclass
class Progress:
    """Counters of one stage, equal on all ranks."""

    step: int = 0
    """Optimizer steps done (skipped ones included)."""
    samples: int = 0
    tokens: int = 0
    evaluated_step: int = 0
    """Last step after which the validation split was evaluated."""
    best_step: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluations_without_improvement: int = 0
    early_stopped: bool = False
    skipped_steps: int = 0
    """Steps without an update because the gradients were not finite."""
    skipped_in_a_row: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        return cls(**values)

    def take_evaluation(self, metrics: dict[str, float], metric: str, stopping: EarlyStopping | None) -> bool:
        """Note an evaluation after the current step; returns whether it is the best so far by `metric`.

        With early stopping, an improvement smaller than min_delta is kept as the best but does not reset the patience.
        """
        sign = -1.0 if metric == "loss" else 1.0
        gain = math.inf if self.best_step is None else sign * (metrics[metric] - self.best_metrics[metric])
        if math.isnan(metrics[metric]):
            gain = -math.inf
        self.evaluated_step = self.step
        if gain > 0.0:
            self.best_step, self.best_metrics = self.step, dict(metrics)
        if gain > (stopping.min_delta if stopping else 0.0):
            self.evaluations_without_improvement = 0
        else:
            self.evaluations_without_improvement += 1
        if stopping and self.evaluations_without_improvement >= stopping.patience:
            self.early_stopped = True
        return gain > 0.0
