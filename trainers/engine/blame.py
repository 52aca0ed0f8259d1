"""Which samples a failure or a bad gradient came from, in words that lead to the row of the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from trainers.data.order import deal
from trainers.engine.ranks import Ranks
from trainers.tasks.base import LocatesSamples, Task

MOST_IDS = 64
MOST_SHOWN = 6


def describe_samples(task: Task, ids: np.ndarray) -> Mapping[str, Any]:
    """For a rank's error record: `ids`, and `text`, which names the first of them with file and line where the task knows."""
    return {"ids": ids[:MOST_IDS].tolist(), "text": samples_text(task, ids)}


def samples_text(task: Task, ids: np.ndarray) -> str:
    """`samples 3 (train.tsv:5), 8 (train.tsv:10) and 14 more`."""
    shown = [f"{number} ({place})" if place else str(number) for number, place in _located(task, ids[:MOST_SHOWN])]
    more = f" and {len(ids) - MOST_SHOWN} more" if len(ids) > MOST_SHOWN else ""
    return f"samples {', '.join(shown)}{more}" if shown else "no samples"


def _located(task: Task, ids: np.ndarray) -> list[tuple[int, str]]:
    places = task.locate(ids) if isinstance(task, LocatesSamples) else [""] * len(ids)
    return list(zip(ids.tolist(), places, strict=True))


def blame_step(task: Task, ranks: Ranks, ids: np.ndarray, lengths: np.ndarray, shares: paddle.Tensor) -> str:
    """Whose loss made the gradients of a global batch overflow, and its samples. Every rank calls it with its own `shares` of
    the loss terms: one collective."""
    finite = ranks.gather([float(math.isfinite(float(shares.sum())))])[:, 0]
    bad = np.flatnonzero(finite == 0.0).tolist()
    if not bad:
        return f"every loss is finite, a gradient is not; {samples_text(task, ids)}"
    hands = deal(lengths, ranks.world_size)
    return "; ".join(f"the loss of rank {rank} is not finite: {samples_text(task, ids[hands[rank]])}" for rank in bad)
