"""What preparation finds out about a fine-tuning stage's data: its part of prepared.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError, DataError
from configs.mixing import batches_per_epoch
from configs.schema import ClassifierStage, DataConfig, MultitaskStage
from trainers.data.cache import fingerprint_of
from trainers.data.dataset_cache import DatasetCache
from trainers.data.duplicates import Duplicates, open_duplicates
from trainers.data.rows import ChosenRows, choose_rows
from trainers.data.sequences import input_lengths, num_fractions
from trainers.data.store import Corpus, Texts, open_texts

Say = Callable[[str, str], None]
"""(text, level): one line for the user."""
_HELD_OUT = ("test", "validation")


def finetuning_facts(
    place: str, stage: ClassifierStage, data: DataConfig, seed: int, datasets: DatasetCache, say: Say
) -> dict[str, Any]:
    """Makes the cache entries of one labelled data set of a stage and describes them. Raises DataError.

    place: the key that messages name.
    """
    paths = {"train": datasets.texts(data, "train")}
    train = open_texts(paths["train"])
    labels = _labels(place, data, train)
    paths |= {split: datasets.texts(data, split) for split in _HELD_OUT if split in datasets.dataset(data).splits}
    opened = {split: open_texts(path) for split, path in paths.items()}
    for split, texts in opened.items():
        tell_skipped(f"{place}: {split} split", texts, len(texts), say)
    facts: dict[str, Any] = {
        "splits": {split: str(path) for split, path in paths.items()},
        "duplicates": str(datasets.duplicates(data)),
    }
    duplicates = open_duplicates(Path(facts["duplicates"]))
    _tell_overlap(place, data, duplicates, len(opened["test"]) if "test" in opened else 0, say)
    rows = choose_rows(data, facts, seed)
    lengths = input_lengths(train.lengths, train.pair_lengths, stage)[rows.train]
    return {
        "task": "finetune",
        "label_names": list(train.label_names),
        "num_examples": len(rows.train),
        "num_validation": len(rows.validation),
        "num_test": len(rows.test),
        "num_tokens": int(lengths.sum()),
        "mean_tokens": float(lengths.mean()),
        "most_fractions": int(num_fractions(train.lengths[rows.train], stage).max()),
        "data_fingerprint": _fingerprint(train, rows, opened.get("validation")),
        **facts,
        "num_skipped": sum(texts.num_skipped for texts in opened.values()),
        "skipped_examples": [example for texts in opened.values() for example in texts.skipped_examples],
        "num_dropped": int(duplicates.dropped(data).sum()),
        "num_repeats": dict(duplicates.counts),
        "label_counts": np.bincount(labels[rows.train], minlength=len(train.label_names)).tolist(),
        "lengths": describe_lengths(_whole_lengths(train)[rows.train], stage.max_length),
    }


def multitask_facts(place: str, stage: MultitaskStage, seed: int, datasets: DatasetCache, say: Say) -> dict[str, Any]:
    """The same for every data set of a multi-task stage, and their sums.

    Raises DataError, and ConfigError for a weight that is too small.
    """
    entries = {
        key: finetuning_facts(f"{place}.data_sets.{key}", stage, data, seed, datasets, say)
        for key, data in stage.data_sets.items()
    }
    examples = {key: entry["num_examples"] for key, entry in entries.items()}
    never = [key for key, count in batches_per_epoch(stage, examples).items() if count == 0]
    if never:
        raise ConfigError(
            f"{place}.mixing: the weight of {', '.join(never)} is too small for a single batch per epoch",
            "raise it, or leave the data set out",
        )
    summed = ("num_examples", "num_validation", "num_test", "num_tokens", "num_skipped", "num_dropped")
    sums = {key: sum(entry[key] for entry in entries.values()) for key in summed}
    return {
        "task": "multitask",
        "label_names": None,
        **sums,
        "mean_tokens": sums["num_tokens"] / sums["num_examples"],
        "most_fractions": max(entry["most_fractions"] for entry in entries.values()),
        "data_fingerprint": fingerprint_of({key: entry["data_fingerprint"] for key, entry in entries.items()}),
        "data_sets": entries,
    }


def tell_skipped(where: str, entry: Texts | Corpus, num_good: int, say: Say) -> None:
    """A warning when bad rows were left out: how many, and the first of them."""
    if entry.num_skipped:
        total = entry.num_skipped + num_good
        first = "; ".join(entry.skipped_examples)
        say(f"{where}: {entry.num_skipped:,} of {total:,} rows are bad and skipped, the first: {first}", "warning")


def describe_lengths(lengths: np.ndarray, max_length: int | None) -> dict[str, float | int]:
    """mean and max of token counts, and the share over `max_length` (0 where there is no such limit)."""
    over = float((lengths > max_length).mean()) if max_length is not None else 0.0
    return {"mean": float(lengths.mean()), "max": int(lengths.max()), "share_over": over}


def _whole_lengths(texts: Texts) -> np.ndarray:
    """Tokens of every row with special tokens, nothing cut."""
    return texts.lengths + 2 if texts.pair_lengths is None else texts.lengths + texts.pair_lengths + 3


def _tell_overlap(place: str, data: DataConfig, duplicates: Duplicates, num_test: int, say: Say) -> None:
    found = duplicates.counts["test_in_train"]
    if not found:
        return
    in_test = duplicates.counts["in_test"]
    done = (
        "those training rows are left out"
        if data.overlap == "drop"
        else "data.overlap=drop leaves those training rows out"
    )
    say(
        f"{place}: {found:,} of {num_test:,} test rows also stand in the training split (as {in_test:,} rows); {done}",
        "info",
    )


def _labels(place: str, data: DataConfig, texts: Texts) -> np.ndarray:
    if texts.labels is None:
        raise DataError(f"{place}: the {data.dataset} data has no labels", "set data.columns.label")
    if len(texts.label_names) < 2:
        raise DataError(
            f"{place}: all rows have the label {', '.join(texts.label_names)}; a classifier needs at least 2",
            "check data.columns.label",
        )
    return texts.labels


def _fingerprint(train: Texts, rows: ChosenRows, validation: Texts | None) -> str:
    """Identifies what is trained on and what chooses the best checkpoint: content and rows, so also what was dropped."""
    chosen = {"train": rows.train, "validation": rows.validation}
    return fingerprint_of(
        {
            "train": train.fingerprint,
            "validation": validation.fingerprint if validation is not None else None,
            "rows": {split: hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest() for split, ids in chosen.items()},
        }
    )
