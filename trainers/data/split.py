"""Choosing rows: stratified, seeded validation splits and subsets."""

from __future__ import annotations

import numpy as np

from configs.errors import DataError
from trainers.data.random_bits import Purpose, permutation


def subset_rows(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Ids (ascending int64) of a stratified sample of `n` rows: each class gets its share of `n` by largest remainder.

    `labels` is int [rows]; all rows when n >= rows.
    """
    if n >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    return _stratified(np.asarray(labels), n, permutation(len(labels), seed, Purpose.SPLIT, epoch=1))


def select_rows(
    texts_labels: np.ndarray, validation: float | int, subset_train: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(training row ids, validation row ids), both ascending int64, disjoint and stratified.

    First the rows are reduced to `subset_train` (None: all), then `validation` of them are held out: a share when it is a float,
    a number of rows when it is an int. Raises DataError when no training row would be left.
    """
    labels = np.asarray(texts_labels)
    kept = np.arange(len(labels), dtype=np.int64) if subset_train is None else subset_rows(labels, subset_train, seed)
    num_held_out = validation if isinstance(validation, int) else int(len(kept) * validation + 0.5)
    if num_held_out == 0:
        return kept, np.empty(0, dtype=np.int64)
    if num_held_out >= len(kept):
        raise DataError(
            f"data.validation: {validation} holds out {num_held_out} of {len(kept)} training rows; at least one must be left",
            "lower data.validation or raise data.subset.train",
        )
    order = permutation(len(labels), seed, Purpose.SPLIT, epoch=0)
    rank_of_row = np.empty(len(labels), dtype=np.int64)
    rank_of_row[order] = np.arange(len(labels))
    chosen = kept[_stratified(labels[kept], num_held_out, np.argsort(rank_of_row[kept], kind="stable"))]
    return np.setdiff1d(kept, chosen, assume_unique=True), chosen


def _stratified(labels: np.ndarray, n: int, order: np.ndarray) -> np.ndarray:
    """The first rows of `order` within each class, as many as its share of `n`; ascending ids."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = _shares(counts, n)
    ordered_labels = labels[order]
    parts = [order[ordered_labels == value][:share] for value, share in zip(classes, shares, strict=True)]
    return np.sort(np.concatenate(parts)).astype(np.int64, copy=False)


def _shares(counts: np.ndarray, n: int) -> list[int]:
    """Split `n` in proportion to `counts`: floors first, then one more to the largest remainders (ties: the lower class)."""
    total = int(counts.sum())
    floors = [n * int(count) // total for count in counts]
    remainders = [n * int(count) % total for count in counts]
    by_remainder = sorted(range(len(floors)), key=lambda index: -remainders[index])
    for index in by_remainder[: n - sum(floors)]:
        floors[index] += 1
    return floors
