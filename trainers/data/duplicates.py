"""Which training rows repeat each other or the test split: found once per pair of splits and kept as a cache entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data import fingerprints, near_duplicates
from trainers.data.cache import ensure_entry
from trainers.data.near_duplicates import Phrases, are_near, band_keys, candidate_pairs
from trainers.data.npy import map_npy, write_npy
from trainers.data.store import Texts, read_manifest

KIND = "duplicates"
Advance = Callable[[int, int], None]
"""(rows done, rows in all)"""


@dataclass(frozen=True)
class Duplicates:
    """What was found between a training split and its test split (both whole)."""

    fingerprint: str
    counts: Mapping[str, int]
    """repeated, near: training rows that equal, or nearly, an earlier one; test_in_train, test_near_train: test rows that stand so in
    the training split; in_test, near_test: training rows that stand so in the test split. Equal ones are among the near ones."""
    in_test: np.ndarray
    """bool [training rows]: the text also stands in the test split."""
    earlier: np.ndarray
    """int64 [training rows]: an earlier training row that this one nearly equals, or -1."""

    def dropped(self, data: DataConfig) -> np.ndarray:
        """bool [training rows]: the rows that `data` leaves out."""
        dropped = np.zeros(len(self.in_test), dtype=bool)
        if data.overlap == "drop":
            dropped |= self.in_test
        if data.near_duplicates == "drop":
            dropped |= self.earlier >= 0
        return dropped


def drops_rows(data: DataConfig) -> bool:
    """Whether a data section leaves duplicates out."""
    return "drop" in (data.overlap, data.near_duplicates)


def ensure_duplicates(
    tokens_dir: Path, train: Texts, test: Texts | None, advance: Advance, say: Callable[[str], None]
) -> Path:
    """The cache entry for these two splits, made if it is not there."""
    key = {
        "train": train.fingerprint,
        "test": test.fingerprint if test is not None else None,
        "versions": [fingerprints.VERSION, near_duplicates.VERSION],
    }

    def build(directory: Path) -> dict[str, Any]:
        return _build(directory, train, test, advance)

    return ensure_entry(tokens_dir, KIND, key, build, len(train) * 16, say)


def open_duplicates(path: Path) -> Duplicates:
    """Open such an entry; DataError when it is missing or damaged."""
    manifest = read_manifest(path, KIND)
    try:
        counts = {str(name): int(count) for name, count in manifest["counts"].items()}
        fingerprint = str(manifest["fingerprint"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: no valid manifest ({error!r})", "run ./run.sh prepare on the config") from error
    in_test, earlier = (np.asarray(map_npy(path / f"{name}.npy")) for name in ("in_test", "earlier"))
    return Duplicates(fingerprint, counts, in_test, earlier)


def _build(directory: Path, train: Texts, test: Texts | None, advance: Advance) -> dict[str, Any]:
    own = train.row_fingerprints
    others = test.row_fingerprints if test is not None else np.empty(0, dtype=np.uint64)
    in_test = np.isin(own, others)
    first = _first_with_the_same(own)
    is_first = first == np.arange(len(own))
    earlier, near_test, test_near = _compare(train, test, is_first, advance)
    # a repetition stands for whatever its first occurrence does
    earlier = np.where(is_first, earlier, first)
    near_test = near_test[first] | in_test
    test_in_train = np.isin(others, own)
    write_npy(directory / "in_test.npy", in_test)
    write_npy(directory / "earlier.npy", earlier)
    counts = {
        "repeated": int((~is_first).sum()),
        "near": int((earlier >= 0).sum()),
        "in_test": int(in_test.sum()),
        "near_test": int(near_test.sum()),
        "test_in_train": int(test_in_train.sum()),
        "test_near_train": int((test_near | test_in_train).sum()),
    }
    return {"counts": counts}


def _first_with_the_same(values: np.ndarray) -> np.ndarray:
    """For every element the position of the first one that equals it."""
    _, first, group = np.unique(values, return_index=True, return_inverse=True)
    positions: np.ndarray = first[group.reshape(-1)].astype(np.int64, copy=False)
    return positions


def _compare(
    train: Texts, test: Texts | None, is_first: np.ndarray, advance: Advance
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(an earlier near row of every training row or -1, training rows near a test row, test rows near a training row).

    Only the first of equal training rows is compared.
    """
    num_test = len(test) if test is not None else 0
    total, done = num_test + len(train), 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        advance(done, total)

    keys = band_keys(train, count)
    keys[:, ~is_first] = 0
    train_sets = test_sets = Phrases(train)
    if test is not None:
        keys = np.concatenate([band_keys(test, count), keys], axis=1)
        test_sets = Phrases(test)
    earlier = np.full(len(train), -1, dtype=np.int64)
    near_test = np.zeros(len(train), dtype=bool)
    test_near = np.zeros(num_test + 1, dtype=bool)  # the last stands for all training rows
    for first, later in candidate_pairs(keys):
        in_train = later >= num_test
        items, rows = first[in_train], later[in_train] - num_test
        known = np.where(items < num_test, near_test[rows] & test_near[np.minimum(items, num_test)], earlier[rows] >= 0)
        for item, row in zip(items[~known].tolist(), rows[~known].tolist(), strict=True):
            in_test = item < num_test
            if not are_near(test_sets(item) if in_test else train_sets(item - num_test), train_sets(row)):
                continue
            if in_test:
                near_test[row] = test_near[item] = True
            else:
                earlier[row] = item - num_test
    return earlier, near_test, test_near[:num_test]
