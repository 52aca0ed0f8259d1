"""The rows of a prepared fine-tuning stage: which are trained on, validated on and tested. One function for all who need them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data.duplicates import drops_rows, open_duplicates
from trainers.data.split import select_rows, subset_rows
from trainers.data.store import open_texts


class ChosenRows(NamedTuple):
    """Ids of rows, ascending int64, numbered within their split as a whole."""

    train: np.ndarray
    """Of the split `train`."""
    validation: np.ndarray
    """Of the split `validation_split`; empty where nothing is held out."""
    validation_split: str
    """`validation` where the data has such a split, else `train`."""
    test: np.ndarray
    """Of the split `test`; empty where there is none."""


def choose_rows(data: DataConfig, facts: Mapping[str, Any], seed: int) -> ChosenRows:
    """The rows of a stage with the data section `data` and the entry `facts` in prepared.json (or what it has of it).

    facts: `splits` {split: cache entry} and `duplicates` (a cache entry, or None where they were not looked for). DataError when a
    split that is chosen from by class has no labels, or too few rows are there.
    """
    splits: Mapping[str, str] = facts["splits"]
    train = open_texts(Path(splits["train"]))
    labels = _labels(train.labels, "train")
    own = "validation" in splits
    kept = None
    if drops_rows(data):
        kept = np.flatnonzero(~open_duplicates(Path(facts["duplicates"])).dropped(data))
        if len(kept) == 0:
            raise DataError(
                "data.overlap, data.near_duplicates: every training row is dropped",
                "set them to report, or use other data",
            )
    train_rows, validation_rows = select_rows(labels, data, seed, train.label_names, kept, own)
    if own:
        validation_rows = np.arange(len(open_texts(Path(splits["validation"]))), dtype=np.int64)
    return ChosenRows(train_rows, validation_rows, "validation" if own else "train", _test_rows(data, splits, seed))


def _test_rows(data: DataConfig, splits: Mapping[str, str], seed: int) -> np.ndarray:
    if "test" not in splits:
        return np.empty(0, dtype=np.int64)
    test = open_texts(Path(splits["test"]))
    if data.subset.test is None:
        return np.arange(len(test), dtype=np.int64)
    return subset_rows(_labels(test.labels, "test"), data.subset.test, seed)


def _labels(labels: np.ndarray | None, split: str) -> np.ndarray:
    if labels is None:
        raise DataError(f"the split '{split}' has no labels", "name the label column in data.columns")
    return labels
