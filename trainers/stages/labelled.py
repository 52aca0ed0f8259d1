"""One labelled data set of a stage: which rows are trained on, which choose the best checkpoint, which are the test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from configs.errors import DataError
from configs.schema import ClassifierStage, DataConfig
from trainers.data.rows import choose_rows
from trainers.data.store import Texts, open_texts
from trainers.data.vocabulary import Vocabulary
from trainers.tasks.finetune import FinetuneTask, TextEncoder

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class LabelledRows:
    """Some rows of a split, as the stage's model sees them."""

    encoder: TextEncoder
    rows: np.ndarray
    """Row numbers, ascending int64."""

    @property
    def labels(self) -> np.ndarray:
        """[rows] int64: their labels."""
        chosen: np.ndarray = _labels_of(self.encoder.texts)[self.rows]
        return chosen


class LabelledData:
    """A prepared data set. The same data section and seed give the same rows in every stage, so none validates on what another trained."""

    def __init__(
        self,
        facts: Mapping[str, Any],
        data: DataConfig,
        stage: ClassifierStage,
        vocabulary: Vocabulary,
        seed: int,
    ) -> None:
        """`facts`: the data set's part of prepared.json."""
        self.label_names: tuple[str, ...] = tuple(facts["label_names"])
        self._splits: Mapping[str, str] = facts["splits"]
        self._chosen = choose_rows(data, facts, seed)
        self._stage = stage
        self._vocabulary = vocabulary
        self._seed = seed

    @property
    def has_pairs(self) -> bool:
        """Whether a row is a pair of texts."""
        return open_texts(Path(self._splits["train"])).has_pairs

    def has_test(self) -> bool:
        """Whether the data set has a test split."""
        return "test" in self._splits

    def rows(self, split: Split) -> LabelledRows:
        """The rows of a split; none for `validation` when none are held out. Raises DataError when they have no labels."""
        chosen = self._chosen
        rows = {"train": chosen.train, "validation": chosen.validation, "test": chosen.test}[split]
        texts = open_texts(Path(self._splits[chosen.validation_split if split == "validation" else split]))
        return LabelledRows(TextEncoder(texts, self._vocabulary, self._stage), rows)

    def training_task(self, per_sequence_noise: bool) -> FinetuneTask:
        """Batches of the training rows."""
        train = self.rows("train")
        return FinetuneTask(train.encoder, train.rows, self._stage.batch, self._seed, per_sequence_noise)

    def majority_class(self) -> int:
        """The most frequent class of the training rows."""
        return int(np.bincount(self.rows("train").labels, minlength=len(self.label_names)).argmax())


def _labels_of(texts: Texts) -> np.ndarray:
    if texts.labels is None:
        raise DataError(f"{texts.path}: the split has no labels", "name the label column in data.columns")
    return texts.labels
