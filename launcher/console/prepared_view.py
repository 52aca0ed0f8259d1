"""What `prepare` shows when it is done: what each stage is trained on, and what is wrong or doubtful about its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launcher.console.tables import Column

Table = tuple[str, list[Column], list[tuple[str, ...]]]
"""(title, columns, rows)"""
Facts = Mapping[str, Mapping[str, Any]]
"""The `stages` part of prepared.json."""
UNKNOWN = "-"
MAX_LABELS = 14


def summary(name: str, steps: Mapping[str, int | None], facts: Facts) -> list[Table]:
    """The two tables; `steps` are the optimizer steps of the stages to show, by name."""
    sizes = ("examples", "validation", "test", "steps", "mean tokens", "longest", "cut")
    rows = ("skipped", "repeated", "nearly", "test in train", "nearly in train", "left out")
    shown = {stage: facts[stage] for stage in steps if stage in facts}
    parts = [part for stage, entry in shown.items() for part in _parts(stage, entry)]
    return [
        (f"Prepared {name}", _columns(sizes), [_sizes(part, steps.get(part), entry) for part, entry in parts]),
        ("Rows of the data", _columns(rows), [_rows(part, entry) for part, entry in parts]),
    ]


def _parts(stage: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A stage and, of a multi-task stage, each of its data sets as STAGE/NAME."""
    yield stage, entry
    for name, part in entry.get("data_sets", {}).items():
        yield f"{stage}/{name}", part


def details(facts: Facts, stages: Mapping[str, Any]) -> list[str]:
    """Lines below the tables: how many rows each class has, and the first rows that were skipped."""
    lines = []
    for stage, entry in (part for name in stages for part in _parts(name, facts.get(name, {}))):
        if entry.get("label_counts"):
            lines.append(f"{stage}: {_labels(entry['label_names'], entry['label_counts'])}")
        lines += [f"{stage}: skipped {example}" for example in entry.get("skipped_examples", ())]
    return lines


def _columns(headings: Sequence[str]) -> list[Column]:
    return [Column("stage"), *(Column(heading, right=True) for heading in headings)]


def _sizes(stage: str, steps: int | None, entry: Mapping[str, Any]) -> tuple[str, ...]:
    lengths = entry.get("lengths")  # none of a multi-task stage as a whole
    is_cut = entry["task"] == "finetune"  # a document of a corpus makes as many examples as it needs
    held_out = (entry["num_validation"] or None, None) if entry["task"] == "pretrain" else None
    counts = (entry["num_examples"], *(held_out or (entry["num_validation"], entry["num_test"])), steps)
    if lengths is None:
        return stage, *map(_count, counts), f"{entry['mean_tokens']:,.1f}", UNKNOWN, UNKNOWN
    share = f"{lengths['share_over']:.1%}" if is_cut else UNKNOWN
    return stage, *map(_count, counts), f"{lengths['mean']:,.1f}", _count(lengths["max"]), share


def _rows(stage: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    repeats = entry.get("num_repeats", {})
    found = (repeats.get(key) for key in ("repeated", "near", "test_in_train", "test_near_train"))
    return stage, *map(_count, (entry["num_skipped"], *found, entry["num_dropped"]))


def _labels(names: Sequence[str], counts: Sequence[int]) -> str:
    if len(names) > MAX_LABELS:
        return f"{len(names)} classes of {min(counts):,} to {max(counts):,} training rows"
    return "training rows by class: " + ", ".join(_by_class(names, counts))


def _by_class(names: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    for name, count in zip(names, counts, strict=True):
        yield f"{name} {count:,}"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"
