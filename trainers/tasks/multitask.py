"""Multi-task fine-tuning: batches of several data sets in turn, a shared encoder and a classifier for each (paper.md section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import paddle

from trainers.data.random_bits import Purpose, permutation
from trainers.tasks.finetune import FinetuneTask, LabelledBatch


@dataclass(frozen=True)
class OneOfMany:
    """A micro-batch of one of the data sets."""

    task: int
    num_tasks: int
    batch: LabelledBatch

    @property
    def counts(self) -> tuple[float, ...]:
        """Sequences under the term of their data set, 0 under the others."""
        return tuple(self.batch.counts[0] if task == self.task else 0.0 for task in range(self.num_tasks))

    @property
    def num_cells(self) -> int:
        return self.batch.num_cells


class MultitaskTask:
    """The order in which data sets take turns; everything else is each one's own task.

    Which data set a step belongs to is a function of (seed, epoch, index) alone: an epoch is a shuffled row of `draws[name]` steps per
    data set. A data set goes through its rows in epochs of its own, counted by its own steps, so any step is reached without replaying.
    Sample ids number the rows of all data sets one after the other.
    """

    def __init__(self, tasks: Mapping[str, FinetuneTask], draws: Mapping[str, int], seed: int) -> None:
        self.terms: tuple[str, ...] = tuple(tasks)
        self._tasks = tuple(tasks.values())
        self._draws = np.array([draws[name] for name in tasks], dtype=np.int64)
        self._seed = seed
        self._first_ids = np.cumsum([0, *(len(task.encoder.texts) for task in self._tasks)])
        self._turns: tuple[int, np.ndarray, np.ndarray] | None = None
        self.num_examples = sum(task.num_examples for task in self._tasks)
        self.steps_per_epoch = int(self._draws.sum())

    def _turns_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """For every step of an epoch: its data set, and how many steps of it came before in the epoch."""
        if self._turns is None or self._turns[0] != epoch:
            order = permutation(self.steps_per_epoch, self._seed, Purpose.MIXING, epoch)
            turns = np.repeat(np.arange(len(self._tasks)), self._draws)[order]
            earlier = np.empty_like(turns)
            for task, count in enumerate(self._draws):
                earlier[turns == task] = np.arange(count)
            self._turns = (epoch, turns, earlier)
        return self._turns[1], self._turns[2]

    def batch_ids(self, epoch: int, index: int) -> np.ndarray:
        """Sample ids of a global batch, all of one data set."""
        turns, earlier = self._turns_of(epoch)
        number = int(turns[index])
        task = self._tasks[number]
        own_epoch, own_index = divmod(epoch * int(self._draws[number]) + int(earlier[index]), task.steps_per_epoch)
        ids: np.ndarray = task.batch_ids(own_epoch, own_index) + self._first_ids[number]
        return ids

    def lengths(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        number = self._owner(ids)
        return self._tasks[number].lengths(epoch, ids - self._first_ids[number])

    def locate(self, ids: np.ndarray) -> list[str]:
        """The file and line of each row of a batch."""
        if len(ids) == 0:
            return []
        number = self._owner(ids)
        return self._tasks[number].locate(ids - self._first_ids[number])

    def _owner(self, ids: np.ndarray) -> int:
        """The number of the data set that the rows of a batch belong to."""
        return int(np.searchsorted(self._first_ids, ids[0], side="right")) - 1

    def micro_batch(self, epoch: int, step: int, ids: np.ndarray) -> OneOfMany:
        number = int(self._turns_of(epoch)[0][step - epoch * self.steps_per_epoch])
        rows = ids - self._first_ids[number]
        return OneOfMany(number, len(self._tasks), self._tasks[number].micro_batch(epoch, step, rows))

    def losses(self, model: Any, batch: OneOfMany) -> list[paddle.Tensor]:
        """The loss of the batch's data set under its term; nothing under the others, whose classifiers get no gradient."""
        classify = partial(model, head=self.terms[batch.task])
        (loss,) = self._tasks[batch.task].losses(classify, batch.batch)
        return [loss if task == batch.task else paddle.zeros_like(loss) for task in range(len(self._tasks))]
