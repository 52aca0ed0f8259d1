"""Further pre-training: masked language model, with or without next-sentence prediction (paper.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from trainers.data.instances import NO_NEXT
from trainers.data.order import epoch_order
from trainers.data.pretraining import Epoch, Masked, Source
from trainers.model.batch import TokenBatch, flat_token_batch
from trainers.model.dropout import SequenceNoise


@dataclass(frozen=True)
class MaskedBatch:
    """Token sequences with masked positions."""

    tokens: TokenBatch
    positions_M: paddle.Tensor
    """[M] int64 flat positions of the predicted tokens."""
    labels_M: paddle.Tensor
    """[M] int64 original ids."""
    next_B: paddle.Tensor | None
    """[B] int64: 0 where the second part follows the first, 1 where it is random, NO_NEXT where there is none; None without NSP."""
    num_pairs: int
    """Sequences with a second part."""
    weight: float
    """1, or 0 for the stand-in of a rank that has no samples in a step."""

    @property
    def counts(self) -> tuple[float, ...]:
        masked = self.weight * int(self.labels_M.shape[0])
        return (masked,) if self.next_B is None else (masked, self.weight * self.num_pairs)

    @property
    def num_cells(self) -> int:
        return self.tokens.layout.num_cells if self.weight else 0


def make_masked_batch(masked: Masked, nsp: bool, noise: SequenceNoise | None, weight: float) -> MaskedBatch:
    """A batch of masked instances on the device."""
    return MaskedBatch(
        flat_token_batch(masked.ids, masked.types, np.diff(masked.offsets).tolist(), noise),
        paddle.to_tensor(masked.positions.astype(np.int64)),
        paddle.to_tensor(masked.labels.astype(np.int64)),
        paddle.to_tensor(masked.next_labels.astype(np.int64)) if nsp else None,
        int((masked.next_labels != NO_NEXT).sum()),
        weight,
    )


class PretrainTask:
    """Batches and losses over the instances that a source gives for each epoch."""

    def __init__(self, source: Source, nsp: bool, batch: int, seed: int, per_sequence_noise: bool) -> None:
        """`per_sequence_noise`: dropout independent of ranks (CPU)."""
        self.terms: tuple[str, ...] = ("mlm", "nsp") if nsp else ("mlm",)
        self._source = source
        self._nsp = nsp
        self._batch = batch
        self._seed = seed
        self._per_sequence_noise = per_sequence_noise
        self._epoch: tuple[int, Epoch, np.ndarray] | None = None
        self.num_examples = len(self._order(0))
        self.steps_per_epoch = steps_per_epoch(self.num_examples, batch)

    def _open(self, epoch: int) -> tuple[Epoch, np.ndarray]:
        """Instances of an epoch and their order."""
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = None  # frees the last epoch's instances before the next are drawn
            instances = self._source.epoch(epoch)
            self._epoch = (epoch, instances, epoch_order(len(instances.lengths), self._seed, epoch))
        return self._epoch[1], self._epoch[2]

    def _order(self, epoch: int) -> np.ndarray:
        return self._open(epoch)[1]

    def batch_ids(self, epoch: int, index: int) -> np.ndarray:
        """Instance ids of a global batch. An epoch is always as many full batches as epoch 0 holds, although the number of
        instances varies a little: a shorter epoch starts its order again, so any step is reached without replaying others."""
        order, size = self._order(epoch), self._batch
        chosen: np.ndarray = order[np.arange(index * size, (index + 1) * size) % len(order)]
        return chosen

    def lengths(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = self._open(epoch)[0].lengths[ids]
        return lengths

    def micro_batch(self, epoch: int, step: int, ids: np.ndarray) -> MaskedBatch:
        weight = 1.0 if len(ids) else 0.0
        instances = ids if len(ids) else np.zeros(1, dtype=np.int64)
        noise = SequenceNoise(self._seed, step, instances.tolist()) if self._per_sequence_noise else None
        return make_masked_batch(self._open(epoch)[0].masked(instances), self._nsp, noise, weight)

    def losses(self, model: Any, batch: MaskedBatch) -> list[paddle.Tensor]:
        mlm_MV, nsp_B2 = model(batch.tokens, batch.positions_M)
        sums = [F.cross_entropy(mlm_MV.astype("float32"), batch.labels_M, reduction="sum") * batch.weight]
        if nsp_B2 is not None:
            each = F.cross_entropy(nsp_B2.astype("float32"), batch.next_B, reduction="sum", ignore_index=NO_NEXT)
            sums.append(each * batch.weight)
        return sums


def steps_per_epoch(num_examples: int, batch: int) -> int:
    """Whole batches of an epoch, at least one."""
    return max(1, num_examples // batch)
