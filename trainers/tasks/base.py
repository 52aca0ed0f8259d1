"""What the loop asks of a task."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import paddle


class MicroBatch(Protocol):
    """Sequences that one rank computes at once."""

    @property
    def counts(self) -> tuple[float, ...]:
        """Items behind each loss term, in the task's order of terms."""

    @property
    def num_cells(self) -> int:
        """Cells of the attention rectangle, padding included."""


class Task(Protocol):
    """Order, batches and losses of one kind of training. Samples are numbered within an epoch."""

    num_examples: int
    """Samples of one epoch."""
    steps_per_epoch: int

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms; the loss is their sum, each a mean over its own items of the global batch."""

    def batch_ids(self, epoch: int, index: int) -> np.ndarray:
        """Sample ids (int64) of the global batch number `index` of an epoch, in order."""

    def lengths(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        """Tokens of each sample as it is trained, special tokens included."""

    def micro_batch(self, epoch: int, step: int, ids: np.ndarray) -> Any:
        """Build the micro-batch of some samples; with no ids, a stand-in that weighs nothing, so that every rank takes part."""

    def losses(self, model: Any, batch: Any) -> list[paddle.Tensor]:
        """Sum of each loss term over the micro-batch's items (float32 scalars)."""


@runtime_checkable
class LocatesSamples(Protocol):
    """A task that knows where its samples come from."""

    def locate(self, ids: np.ndarray) -> list[str]:
        """The place of each sample, such as "train.tsv:17", for messages."""
