"""The keys of the data section: what goes together, what does not, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema import DataConfig
from configs.section import COLLECT_PROBLEMS


def problems(**keys: Any) -> list[tuple[str, str]]:
    values = {"dataset": "trec", **keys}
    data = DataConfig.model_validate(values, context={COLLECT_PROBLEMS: True})
    found = [*data.problems(), *((f"subset.{keys[0]}", message) for keys, message in data.subset.problems())]
    return [(keys if isinstance(keys, str) else keys[0], message) for keys, message in found]


@pytest.mark.parametrize(
    "keys",
    [
        {"subset": {"train": 0.004}},
        {"subset": {"train": 100, "test": 0.5, "unsup": 3}},
        {"subset": {"per_class": 16, "test": 10}},
        {"folds": 5, "fold": 0},
        {"folds": 2, "fold": 1, "validation": 0.1},
        {"on_bad_row": "skip", "max_bad_rows": 0.0},
        {"overlap": "drop", "near_duplicates": "drop"},
        {"dataset": "sogou", "path": "x"},
        {"dataset": "sogou_pinyin"},
        {"dataset": "yahoo"},
    ],
)
def test_what_goes_together(keys: dict[str, Any]) -> None:
    assert problems(**keys) == []


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        (
            {"subset": {"per_class": 5, "train": 10}},
            "subset.per_class",
            "give subset.per_class or subset.train, not both",
        ),
        ({"folds": 5}, "fold", "missing; folds is given, and neither goes without the other"),
        ({"fold": 0}, "folds", "missing; fold is given, and neither goes without the other"),
        ({"folds": 5, "fold": 5}, "fold", "5; with folds: 5 it is 0 to 4"),
        ({"folds": 5, "fold": 1, "validation": 0.2}, "validation", "with folds the validation rows are one fold"),
        (
            {"folds": 5, "fold": 1, "dataset": "csv", "path": "x", "files": {"validation": "v.csv"}},
            "files.validation",
            "with folds the validation rows are one fold; leave it out",
        ),
        ({"max_bad_rows": 0.5}, "max_bad_rows", "only with on_bad_row: skip; strict allows no bad row"),
        ({"dataset": "sogou"}, "path", "missing; dataset 'sogou' needs the file or folder to read; Zhang's version"),
        ({"dataset": "csv"}, "path", "missing; dataset 'csv' needs the file or folder to read"),
        ({"dataset": "text", "path": "x", "overlap": "drop"}, "overlap", "'drop' is for labelled data sets"),
        ({"dataset": "text", "path": "x", "near_duplicates": "drop"}, "near_duplicates", "'drop' is for labelled"),
        ({"dataset": "text", "path": "x", "folds": 2, "fold": 0}, "folds", "no labels to make folds of"),
        ({"dataset": "text", "path": "x", "subset": {"per_class": 2}}, "subset.per_class", "has no classes"),
    ],
)
def test_what_does_not(keys: dict[str, Any], key: str, message: str) -> None:
    found = problems(**keys)
    assert [name for name, _ in found] == [key]
    assert message in found[0][1]


@pytest.mark.parametrize(
    "keys",
    [
        {"subset": {"train": 0}},
        {"subset": {"train": 0.0}},
        {"subset": {"train": 1.0}},
        {"subset": {"train": 1.5}},
        {"subset": {"train": -3}},
        {"subset": {"per_class": 0}},
        {"subset": {"per_class": 0.5}},
        {"folds": 1, "fold": 0},
        {"folds": 3, "fold": -1},
        {"on_bad_row": "ignore"},
        {"on_bad_row": "skip", "max_bad_rows": 1.0},
        {"overlap": "keep"},
        {"near_duplicates": True},
    ],
)
def test_values_out_of_range(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate({"dataset": "trec", **keys})
