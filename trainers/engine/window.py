"""Sums between two lines of metrics.jsonl, kept so that a resumed run writes the same line as an undisturbed one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from trainers.engine.ranks import Ranks


class Window:
    """Losses stay on the device, as this rank's share of the global mean; tokens and samples are global and known on the host."""

    def __init__(self, terms: Sequence[str], ranks: Ranks) -> None:
        self._terms = tuple(terms)
        self._ranks = ranks
        self.reset()

    def reset(self) -> None:
        """Start a new window now."""
        self.steps = 0
        self.samples = 0
        self.tokens = 0
        self.seconds_before = 0.0
        self._cells = 0.0
        self._shares = paddle.zeros([len(self._terms)], dtype="float32")
        self._term_steps = np.zeros(len(self._terms), dtype=np.int64)
        self._started = time.monotonic()

    def reset_clock(self) -> None:
        """Count time from now on, after set-up work."""
        self._started = time.monotonic()

    def exclude(self, seconds: float) -> None:
        """Leave time spent on evaluation or saving out of the throughput."""
        self._started += seconds

    def add(
        self, shares: paddle.Tensor, samples: int, tokens: int, cells: int, present: np.ndarray | None = None
    ) -> None:
        """Take in one step: this rank's shares of the loss terms [K] and cells; global samples and tokens; which terms [K] the step
        has (None: all)."""
        self._term_steps += 1 if present is None else present
        self._shares = self._shares + shares
        self._cells += cells
        self.steps += 1
        self.samples += samples
        self.tokens += tokens

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self._started

    def summary(self) -> dict[str, Any]:
        """Means over the window, the same on every rank (a collective call): loss, losses, throughput, padding share.

        A term's loss is the mean over the steps that have it, None if there is none.
        """
        sums = self._ranks.sum_in_place(self._shares.clone()).numpy().astype(np.float64)
        means = [
            share / steps if steps else None
            for share, steps in zip(sums.tolist(), self._term_steps.tolist(), strict=True)
        ]
        cells = float(self._ranks.sum([self._cells])[0])
        seconds = max(self._seconds(), 1e-9)
        return {
            "loss": float((sums / max(1, self.steps)).sum()),
            "losses": dict(zip(self._terms, means, strict=True)),
            "samples_per_s": self.samples / seconds,
            "tokens_per_s": self.tokens / seconds,
            "padding": 1.0 - self.tokens / cells if cells else 0.0,
            "seconds": seconds,
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint: every rank's own sums (a collective call)."""
        rows = self._ranks.gather([*self._shares.numpy().astype(np.float64).tolist(), self._cells])
        return {
            "rows": rows.tolist(),
            "term_steps": self._term_steps.tolist(),
            "steps": self.steps,
            "samples": self.samples,
            "tokens": self.tokens,
            "seconds": self._seconds(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue a saved window. At another number of ranks, rank 0 takes the sum of all rows."""
        self.reset()
        rows = np.asarray(state["rows"], dtype=np.float64)
        if len(rows) == self._ranks.world_size:
            own = rows[self._ranks.rank]
        else:
            own = rows.sum(axis=0) * (self._ranks.rank == 0)
        self._shares = paddle.to_tensor(own[:-1].astype(np.float32))
        self._cells = float(own[-1])
        self._term_steps = np.asarray(state["term_steps"], dtype=np.int64)
        self.steps, self.samples, self.tokens = state["steps"], state["samples"], state["tokens"]
        self.seconds_before = float(state["seconds"])
