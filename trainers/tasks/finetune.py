"""Fine-tuning: a classifier over labelled texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from configs.schema import FinetuneStage
from trainers.data.order import epoch_order
from trainers.data.store import Texts
from trainers.data.truncate import assemble, pair_lengths, truncate_pair, truncate_single, truncated_length
from trainers.data.vocabulary import Vocabulary
from trainers.model.batch import TokenBatch, make_token_batch
from trainers.model.dropout import SequenceNoise


@dataclass(frozen=True)
class LabelledBatch:
    """Token sequences with labels."""

    tokens: TokenBatch
    labels_B: paddle.Tensor | None
    """[B] int64; None where only predictions are wanted."""
    weight: float
    """1, or 0 for the stand-in of a rank that has no samples in a step."""

    @property
    def counts(self) -> tuple[float, ...]:
        return (self.weight * self.tokens.layout.num_sequences,)

    @property
    def num_cells(self) -> int:
        return self.tokens.layout.num_cells if self.weight else 0


class TextEncoder:
    """Texts of one split as sequences of at most `max_length` tokens with special tokens (paper.md section 1)."""

    def __init__(self, texts: Texts, vocabulary: Vocabulary, stage: FinetuneStage) -> None:
        self.texts = texts
        self._vocabulary = vocabulary
        self._max_length = stage.max_length
        self._truncation = stage.truncation

    def __call__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and types of a row."""
        first, second = self.texts.tokens(row), self.texts.pair_tokens(row)
        if second is None:
            first = truncate_single(first, self._max_length, self._truncation.head, self._truncation.tail)
        else:
            first, second = truncate_pair(first, second, self._max_length)
        return assemble(first, second, self._vocabulary.cls_id, self._vocabulary.sep_id)

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens of every row as `__call__` gives it."""
        if self.texts.pair_lengths is None:
            kept = [truncated_length(int(length), self._max_length) for length in self.texts.lengths]
        else:
            room = self._max_length - 3
            pairs = zip(self.texts.lengths.tolist(), self.texts.pair_lengths.tolist(), strict=True)
            kept = [sum(pair_lengths(a, b, room)) + 3 for a, b in pairs]
        return np.asarray(kept, dtype=np.int64)


class FinetuneTask:
    """Batches and loss of a classifier."""

    terms: tuple[str, ...] = ("classification",)

    def __init__(self, encoder: TextEncoder, rows: np.ndarray, batch: int, seed: int, per_sequence_noise: bool) -> None:
        """`rows`: the training rows (validation taken out). `per_sequence_noise`: dropout independent of ranks (CPU)."""
        if encoder.texts.labels is None:
            raise AssertionError("fine-tuning texts have labels")
        self.encoder = encoder
        self.num_examples = len(rows)
        self.steps_per_epoch = -(-len(rows) // batch)
        self._rows = rows
        self._labels = encoder.texts.labels
        self._lengths = encoder.lengths()
        self._batch = batch
        self._seed = seed
        self._per_sequence_noise = per_sequence_noise
        self._order: tuple[int, np.ndarray] | None = None

    def batch_ids(self, epoch: int, index: int) -> np.ndarray:
        """Row numbers of a global batch; the last one of an epoch may be smaller."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._rows[epoch_order(len(self._rows), self._seed, epoch)])
        return self._order[1][index * self._batch : (index + 1) * self._batch]

    def lengths(self, epoch: int, ids: np.ndarray) -> np.ndarray:
        lengths: np.ndarray = self._lengths[ids]
        return lengths

    def locate(self, ids: np.ndarray) -> list[str]:
        """File and line of each row."""
        return [self.encoder.texts.sources(int(row)) for row in ids]

    def micro_batch(self, epoch: int, step: int, ids: np.ndarray) -> LabelledBatch:
        weight = 1.0 if len(ids) else 0.0
        rows = ids if len(ids) else self._rows[:1]
        noise = SequenceNoise(self._seed, step, rows.tolist()) if self._per_sequence_noise else None
        sequences = [self.encoder(int(row)) for row in rows]
        tokens = make_token_batch([ids for ids, _ in sequences], [types for _, types in sequences], noise)
        return LabelledBatch(tokens, paddle.to_tensor(self._labels[rows].astype(np.int64)), weight)

    def losses(self, model: Any, batch: LabelledBatch) -> list[paddle.Tensor]:
        logits_BC = model(batch.tokens).astype("float32")
        return [F.cross_entropy(logits_BC, batch.labels_B, reduction="sum") * batch.weight]
