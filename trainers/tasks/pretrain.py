"""Further pre-training: masked language model, with or without next-sentence prediction (paper.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from configs.schema import PretrainStage
from trainers.data.instances import InstancePlan, plan_epoch
from trainers.data.masking import Masking, mask_batch
from trainers.data.order import epoch_order
from trainers.data.store import Corpus
from trainers.data.vocabulary import Vocabulary
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
    """[B] int64: 0 where the second part follows the first, 1 where it is random; None without NSP."""
    weight: float
    """1, or 0 for the stand-in of a rank that has no samples in a step."""

    @property
    def counts(self) -> tuple[float, ...]:
        masked = self.weight * int(self.labels_M.shape[0])
        return (masked,) if self.next_B is None else (masked, self.weight * self.tokens.layout.num_sequences)

    @property
    def num_cells(self) -> int:
        return self.tokens.layout.num_cells if self.weight else 0


class PretrainTask:
    """Fresh instances, pairs and masks every epoch, all pure functions of (seed, epoch, id)."""

    def __init__(
        self, corpus: Corpus, vocabulary: Vocabulary, stage: PretrainStage, seed: int, per_sequence_noise: bool
    ) -> None:
        self.terms: tuple[str, ...] = ("mlm", "nsp") if stage.nsp else ("mlm",)
        self._corpus = corpus
        self._vocabulary = vocabulary
        self._stage = stage
        self._seed = seed
        self._per_sequence_noise = per_sequence_noise
        self._masking = Masking(
            special_ids=(vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id),
            vocab_size=vocabulary.size,
            mask_id=vocabulary.mask_id,
            probability=stage.mask_probability,
            max_predictions=stage.max_predictions,
            whole_word=stage.whole_word,
            is_continuation=corpus.is_continuation,
        )
        self._epoch: tuple[int, InstancePlan, np.ndarray] | None = None
        self.num_examples = len(self._plan(0)[0])
        self.steps_per_epoch = max(1, self.num_examples // stage.batch)

    def _plan(self, epoch: int) -> tuple[InstancePlan, np.ndarray]:
        """Instances of an epoch and their order."""
        if self._epoch is None or self._epoch[0] != epoch:
            plan = plan_epoch(
                self._corpus,
                seed=self._seed,
                epoch=epoch,
                max_length=self._stage.max_length,
                short_sequence_probability=self._stage.short_sequence_probability,
                nsp=self._stage.nsp,
            )
            self._epoch = (epoch, plan, epoch_order(len(plan), self._seed, epoch))
        return self._epoch[1], self._epoch[2]

    def batch_ids(self, epoch: int, index: int) -> np.ndarray:
        """Instance ids of a global batch. An epoch is always as many full batches as epoch 0 holds, although the number of
        instances varies a little: a shorter epoch starts its order again, so any step is reached without replaying others."""
        _, order = self._plan(epoch)
        size = self._stage.batch
        chosen: np.ndarray = order[np.arange(index * size, (index + 1) * size) % len(order)]
        return chosen

    def lengths(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = self._plan(epoch)[0].lengths[ids]
        return lengths

    def micro_batch(self, epoch: int, step: int, ids: np.ndarray) -> MaskedBatch:
        plan, _ = self._plan(epoch)
        weight = 1.0 if len(ids) else 0.0
        instances = ids if len(ids) else np.zeros(1, dtype=np.int64)
        ids_T, types_T, offsets, next_B = plan.gather(instances)
        masked_T, positions_M, labels_M, _ = mask_batch(ids_T, offsets, instances, self._seed, epoch, self._masking)
        noise = SequenceNoise(self._seed, step, instances.tolist()) if self._per_sequence_noise else None
        return MaskedBatch(
            flat_token_batch(masked_T, types_T, np.diff(offsets).tolist(), noise),
            paddle.to_tensor(positions_M.astype(np.int64)),
            paddle.to_tensor(labels_M.astype(np.int64)),
            paddle.to_tensor(next_B.astype(np.int64)) if self._stage.nsp else None,
            weight,
        )

    def losses(self, model: Any, batch: MaskedBatch) -> list[paddle.Tensor]:
        mlm_MV, nsp_B2 = model(batch.tokens, batch.positions_M)
        sums = [F.cross_entropy(mlm_MV.astype("float32"), batch.labels_M, reduction="sum") * batch.weight]
        if nsp_B2 is not None:
            sums.append(F.cross_entropy(nsp_B2.astype("float32"), batch.next_B, reduction="sum") * batch.weight)
        return sums
