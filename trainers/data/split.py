"""Choosing rows: stratified, seeded subsets, few-shot samples, validation splits and folds.

Everything is a function of (labels, data section, seed), so that preparation, every rank and every evaluation choose the same rows.
"""

from __future__ import annotations

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data.random_bits import Purpose, permutation

_VALIDATION, _SUBSET, _FOLDS = 0, 1, 2
"""Which random order is used (the `epoch` of its stream): they are independent of each other."""


def subset_rows(labels: np.ndarray, size: float | int, seed: int, among: np.ndarray | None = None) -> np.ndarray:
    """Ids (ascending int64) of a stratified sample: each class gets its share by largest remainder.

    `labels` is int [rows]; `size` a number of rows, or (a float) a part of them, of which at least one is taken; `among` the rows to
    choose from (None: all). All of them where `size` is not smaller.
    """
    order = _order(len(labels), seed, _SUBSET, among)
    n = size if isinstance(size, int) else max(1, int(len(order) * size + 0.5))
    return np.sort(order) if n >= len(order) else _stratified(np.asarray(labels), n, order)


def class_rows(labels: np.ndarray, n: int, seed: int, among: np.ndarray | None, names: tuple[str, ...]) -> np.ndarray:
    """Ids (ascending int64) of `n` rows of every class; DataError when a class has fewer. `names` are those of the classes."""
    order = _order(len(labels), seed, _SUBSET, among)
    counts = np.bincount(labels[order], minlength=len(names))
    short = [f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True) if count < n]
    if short:
        raise DataError(
            f"data.subset.per_class: {n} rows of each class wanted; there are fewer of: {', '.join(short)}",
            f"set data.subset.per_class to at most {int(counts.min())}" if counts.min() else "choose other data",
        )
    ordered = labels[order]
    return np.sort(np.concatenate([order[ordered == number][:n] for number in range(len(names))]))


def fold_rows(labels: np.ndarray, folds: int, fold: int, seed: int, among: np.ndarray | None = None) -> np.ndarray:
    """Ids (ascending int64) of fold `fold` of `folds`: every row is in exactly one.

    The rows of each class are dealt out in a random order, one class after another, so that folds differ by at most one row, and by at
    most one row of each class.
    """
    order = _order(len(labels), seed, _FOLDS, among)
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_class[fold::folds])


def pool_rows(labels: np.ndarray, data: DataConfig, seed: int, kept: np.ndarray | None = None) -> np.ndarray:
    """The rows (ascending int64) that training and validation rows are chosen from: `data.subset.train` of those in `kept` (None:
    all)."""
    if data.subset.train is None:
        return np.arange(len(labels), dtype=np.int64) if kept is None else kept
    return subset_rows(labels, data.subset.train, seed, kept)


def select_rows(
    labels: np.ndarray,
    data: DataConfig,
    seed: int,
    names: tuple[str, ...],
    kept: np.ndarray | None = None,
    own_validation: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(training row ids, validation row ids) of a training split, both ascending int64 and disjoint.

    `labels` is int [rows], `names` those of the classes, `kept` the rows that are no dropped duplicates (None: all).
    First the rows are reduced to `data.subset.train`; then validation rows are held out, unless the data brings its own
    (`own_validation`): one fold, or the share or number `data.validation`. With `data.subset.per_class` exactly so many rows of each
    class are trained on; the validation rows are chosen from the others, a share being one of both together. Raises
    DataError when too few rows are there.
    """
    labels = np.asarray(labels)
    pool = pool_rows(labels, data, seed, kept)
    nothing = np.empty(0, dtype=np.int64)
    if data.folds is not None and data.fold is not None:
        if own_validation:
            raise DataError("data.folds: the data has validation rows of its own", "leave data.folds and data.fold out")
        held_out = fold_rows(labels, data.folds, data.fold, seed, pool)
        rest = np.setdiff1d(pool, held_out, assume_unique=True)
        _require_rows(rest, held_out, pool, f"data.folds: {data.folds}")
        return _few(labels, data, seed, rest, names), held_out
    if data.subset.per_class is not None:
        train = _few(labels, data, seed, pool, names)
        pool = np.setdiff1d(pool, train, assume_unique=True)
        wanted = 0 if own_validation else _num_beside(len(train), data.validation)
        if wanted > len(pool):
            raise DataError(
                f"data.validation: {data.validation} asks for {wanted} rows beside the {len(train)} training rows; only "
                f"{len(pool)} are left",
                "lower data.validation or data.subset.per_class",
            )
        return train, _stratified(labels, wanted, _order(len(labels), seed, _VALIDATION, pool)) if wanted else nothing
    wanted = 0 if own_validation else _num_of(len(pool), data.validation)
    if wanted == 0:
        return pool, nothing
    if wanted >= len(pool):
        raise DataError(
            f"data.validation: {data.validation} holds out {wanted} of {len(pool)} training rows; at least one must be left",
            "lower data.validation or raise data.subset.train",
        )
    held_out = _stratified(labels, wanted, _order(len(labels), seed, _VALIDATION, pool))
    return np.setdiff1d(pool, held_out, assume_unique=True), held_out


def _few(labels: np.ndarray, data: DataConfig, seed: int, rows: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    n = data.subset.per_class
    return rows if n is None else class_rows(labels, n, seed, rows, names)


def _require_rows(rest: np.ndarray, held_out: np.ndarray, pool: np.ndarray, setting: str) -> None:
    if len(rest) == 0 or len(held_out) == 0:
        raise DataError(f"{setting}: the {len(pool)} training rows are too few for that", "lower it, or use more rows")


def _num_of(total: int, part: float | int) -> int:
    return part if isinstance(part, int) else int(total * part + 0.5)


def _num_beside(num_train: int, part: float | int) -> int:
    """Rows beside `num_train` that are the share `part` of both together."""
    return part if isinstance(part, int) else int(num_train * part / (1.0 - part) + 0.5)


def _order(num: int, seed: int, stream: int, among: np.ndarray | None) -> np.ndarray:
    """The rows `among` 0..num-1 in random order; a row's place relative to others does not depend on `among`."""
    order = permutation(num, seed, Purpose.SPLIT, epoch=stream)
    if among is None:
        return order
    wanted = np.zeros(num, dtype=bool)
    wanted[among] = True
    chosen: np.ndarray = order[wanted[order]]
    return chosen


def _stratified(labels: np.ndarray, n: int, order: np.ndarray) -> np.ndarray:
    """The first rows of `order` within each class, as many as its share of `n`; ascending ids."""
    ordered_labels = labels[order]
    classes, counts = np.unique(ordered_labels, return_counts=True)
    shares = _shares(counts, n)
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
