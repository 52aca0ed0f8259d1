"""Fine-tuning: a classifier over labelled texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from configs.schema import ClassifierStage
from trainers.data.order import epoch_order
from trainers.data.sequences import Sequence, SequenceMaker, check_single, input_lengths
from trainers.data.store import Texts
from trainers.data.vocabulary import Vocabulary
from trainers.model.batch import TokenBatch, make_text_batch
from trainers.model.dropout import SequenceNoise


@dataclass(frozen=True)
class LabelledBatch:
    """Texts with labels."""

    tokens: TokenBatch
    labels_D: paddle.Tensor | None
    """[D] int64; None where only predictions are wanted."""
    weight: float
    """1, or 0 for the stand-in of a rank that has no samples in a step."""

    @property
    def counts(self) -> tuple[float, ...]:
        return (self.weight * self.tokens.num_texts,)

    @property
    def num_cells(self) -> int:
        return self.tokens.layout.num_cells if self.weight else 0


class TextEncoder:
    """Texts of one split as sequences of at most `max_length` tokens with special tokens."""

    def __init__(self, texts: Texts, vocabulary: Vocabulary, stage: ClassifierStage) -> None:
        """Raises ConfigError for pairs with `hierarchical`."""
        if stage.hierarchical is not None:
            check_single(texts.has_pairs)
        self.texts = texts
        self._stage = stage
        self._make = SequenceMaker(vocabulary, stage)

    def __call__(self, row: int) -> list[Sequence]:
        """The sequences of a row: one, or all fractions of a hierarchical text."""
        return self._make(self.texts.tokens(row), self.texts.pair_tokens(row))

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens of every row as `__call__` gives it, all its sequences together."""
        return input_lengths(self.texts.lengths, self.texts.pair_lengths, self._stage)


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
        texts = [self.encoder(int(row)) for row in rows]
        noise = None
        if self._per_sequence_noise:
            noise = SequenceNoise(self._seed, step, rows.tolist(), [len(sequences) for sequences in texts])
        tokens = make_text_batch(texts, noise)
        return LabelledBatch(tokens, paddle.to_tensor(self._labels[rows].astype(np.int64)), weight)

    def losses(self, model: Any, batch: LabelledBatch) -> list[paddle.Tensor]:
        logits_DC = model(batch.tokens).astype("float32")
        return [F.cross_entropy(logits_DC, batch.labels_D, reduction="sum") * batch.weight]
