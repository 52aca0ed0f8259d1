"""Figures of several stages summed up: mean, standard deviation over n - 1, least and greatest."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A summary of at least one figure."""

    n: int
    mean: float
    sd: float | None
    """Sample standard deviation (n - 1); None for a single figure."""
    least: float
    greatest: float


def spread(values: Sequence[float]) -> Spread | None:
    """The summary of the values; None when there is none, or one that is not finite."""
    if not values or not all(map(math.isfinite, values)):
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), sd, min(values), max(values))
