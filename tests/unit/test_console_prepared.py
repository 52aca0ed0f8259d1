"""What `prepare` shows at its end."""

from __future__ import annotations

from typing import Any

from launcher.console.prepared_view import details, summary

FINETUNE: dict[str, Any] = {
    "task": "finetune",
    "label_names": ["a", "b"],
    "num_examples": 1200,
    "num_validation": 130,
    "num_test": 50,
    "num_skipped": 3,
    "skipped_examples": ["train.csv:4: text is empty"],
    "num_dropped": 7,
    "num_repeats": {
        "repeated": 5, "near": 6, "in_test": 7, "near_test": 8, "test_in_train": 9, "test_near_train": 10,
    },
    "label_counts": [1000, 200],
    "lengths": {"mean": 1234.56, "max": 3045, "share_over": 0.1269},
}  # fmt: skip
PRETRAIN: dict[str, Any] = {
    "task": "pretrain",
    "label_names": None,
    "num_examples": 900,
    "num_validation": 0,
    "num_test": 0,
    "num_skipped": 0,
    "skipped_examples": [],
    "num_dropped": 0,
    "num_repeats": {"repeated": 2},
    "lengths": {"mean": 11.5, "max": 39, "share_over": 0.0},
}


def test_tables_and_lines() -> None:
    facts = {"pretrain": PRETRAIN, "finetune": FINETUNE, "later": FINETUNE}
    steps = {"pretrain": 100_000, "finetune": None}
    sizes, rows = summary("x", steps, facts)
    assert [column.heading for column in sizes[1]] == [
        "stage", "examples", "validation", "test", "steps", "mean tokens", "longest", "cut",
    ]  # fmt: skip
    assert sizes[2] == [
        ("pretrain", "900", "-", "-", "100,000", "11.5", "39", "-"),
        ("finetune", "1,200", "130", "50", "-", "1,234.6", "3,045", "12.7%"),
    ]
    assert [column.heading for column in rows[1]] == [
        "stage", "skipped", "repeated", "nearly", "test in train", "nearly in train", "left out",
    ]  # fmt: skip
    assert rows[2] == [("pretrain", "0", "2", "-", "-", "-", "0"), ("finetune", "3", "5", "6", "9", "10", "7")]
    assert details(facts, steps) == [
        "finetune: training rows by class: a 1,000, b 200",
        "finetune: skipped train.csv:4: text is empty",
    ]


def test_many_classes_are_summed_up() -> None:
    facts = {"f": {**FINETUNE, "label_names": [str(n) for n in range(50)], "label_counts": list(range(1, 51))}}
    assert details(facts, {"f": 1})[0] == "f: 50 classes of 1 to 50 training rows"
