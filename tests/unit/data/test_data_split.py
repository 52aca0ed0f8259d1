"""Stratified validation splits, subsets, few-shot samples and folds."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import DataError
from configs.schema import DataConfig, Subset
from trainers.data.split import fold_rows, select_rows, subset_rows

LABELS = np.repeat([0, 1, 2], [500, 300, 200])[np.random.default_rng(0).permutation(1000)]
NAMES = ("a", "b", "c")


def data(**keys: object) -> DataConfig:
    subset = {key: keys.pop(key) for key in ("train", "per_class") if key in keys}
    return DataConfig(dataset="trec", subset=Subset(**subset), **keys)  # type: ignore[arg-type]


Rows = tuple[np.ndarray, np.ndarray]


def select(seed: int = 1, kept: np.ndarray | None = None, own_validation: bool = False, **keys: object) -> Rows:
    return select_rows(LABELS, data(**keys), seed, NAMES, kept, own_validation)


def counts(rows: np.ndarray) -> list[int]:
    return [int(count) for count in np.bincount(LABELS[rows], minlength=3)]


def test_a_share_is_held_out_of_every_class() -> None:
    train, validation = select(validation=0.1)
    assert counts(validation) == [50, 30, 20]
    assert counts(train) == [450, 270, 180]
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(1000))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def test_a_whole_number_is_a_number_of_rows() -> None:
    train, validation = select(validation=7)
    # shares of 7: 3.5, 2.1, 1.4; floors 3, 2, 1 and one more to the largest remainder
    assert counts(validation) == [4, 2, 1]
    assert len(train) == 993


def test_the_subset_is_drawn_before_validation_rows() -> None:
    train, validation = select(train=100)
    assert (len(train), len(validation)) == (90, 10)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), subset_rows(LABELS, 100, seed=1))
    assert counts(np.concatenate([train, validation])) == [50, 30, 20]


def test_a_subset_can_be_a_part() -> None:
    assert np.array_equal(subset_rows(LABELS, 0.1, seed=1), subset_rows(LABELS, 100, seed=1))
    assert len(subset_rows(LABELS, 0.004, seed=1)) == 4
    assert len(subset_rows(LABELS, 0.00001, seed=1)) == 1  # never none
    train, validation = select(train=0.5, validation=0.1)
    assert (len(train), len(validation)) == (450, 50)


def test_no_validation() -> None:
    for nothing in (0, 0.0):
        train, validation = select(validation=nothing)
        assert (len(train), len(validation)) == (1000, 0)
    train, validation = select(own_validation=True)
    assert (len(train), len(validation)) == (1000, 0)


def test_seeds_differ_and_repeat() -> None:
    one, two, other = (select(seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert len(np.intersect1d(one, other)) < 40  # 10 expected by chance


def test_a_subset_larger_than_the_data_is_all_of_it() -> None:
    assert np.array_equal(subset_rows(LABELS, 5000, 1), np.arange(1000))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation: 1000 holds out 1000 of 1000"):
        select(validation=1000)


def test_few_shot_trains_on_exactly_n_of_each_class() -> None:
    train, validation = select(per_class=18, validation=0.1)
    assert counts(train) == [18, 18, 18]
    assert len(validation) == 6  # 54 : 6 is 90 : 10
    assert len(np.intersect1d(train, validation)) == 0
    assert counts(select(per_class=200, validation=0)[0]) == [200, 200, 200]
    assert len(select(per_class=5, validation=40)[1]) == 40
    assert not np.array_equal(train, select(seed=2, per_class=18)[0])
    # the rows of n are among those of a larger n: a learning curve adds examples
    assert np.isin(select(per_class=5)[0], train).all()


def test_few_shot_with_too_few_rows_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"per_class: 250 rows of each class wanted; there are fewer of: c 200"
    ) as caught:
        select(per_class=250)
    assert caught.value.hint == "set data.subset.per_class to at most 200"
    with pytest.raises(
        DataError, match=r"data\.validation: 500 asks for 500 rows beside the 600 training rows; only 400"
    ):
        select(per_class=200, validation=500)
    absent = select_rows(LABELS, data(per_class=1), 1, NAMES, np.flatnonzero(LABELS < 3))
    assert len(absent[0]) == 3
    with pytest.raises(DataError, match="fewer of: d 0"):
        select_rows(LABELS, data(per_class=1), 1, (*NAMES, "d"))


@pytest.mark.parametrize("folds", [2, 3, 7, 10])
def test_every_row_is_in_exactly_one_fold(folds: int) -> None:
    parts = [select(folds=folds, fold=fold) for fold in range(folds)]
    assert sorted(np.concatenate([validation for _, validation in parts]).tolist()) == list(range(1000))
    for train, validation in parts:
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(1000))
    sizes = [len(validation) for _, validation in parts]
    assert max(sizes) - min(sizes) <= 1
    by_class = np.array([counts(validation) for _, validation in parts])
    assert (by_class.max(0) - by_class.min(0) <= 1).all()


def test_folds_depend_on_the_seed_and_are_no_slices() -> None:
    assert not np.array_equal(fold_rows(LABELS, 5, 0, seed=1), fold_rows(LABELS, 5, 0, seed=2))
    assert np.array_equal(fold_rows(LABELS, 5, 0, seed=1), fold_rows(LABELS, 5, 0, seed=1))
    first = fold_rows(LABELS, 2, 0, seed=1)
    assert 200 < (first < 500).sum() < 300  # a random half of the first half


def test_folds_of_a_subset_and_few_shot_within_folds() -> None:
    pool = subset_rows(LABELS, 100, seed=1)
    validations = [select(train=100, folds=4, fold=fold)[1] for fold in range(4)]
    assert np.array_equal(np.sort(np.concatenate(validations)), pool)
    train, validation = select(per_class=10, folds=4, fold=0)
    assert counts(train) == [10, 10, 10]
    assert np.array_equal(validation, fold_rows(LABELS, 4, 0, seed=1))
    assert len(np.intersect1d(train, validation)) == 0


def test_folds_beside_own_validation_rows_or_of_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="the data has validation rows of its own"):
        select(folds=2, fold=0, own_validation=True)
    with pytest.raises(DataError, match=r"data\.folds: 5: the 3 training rows are too few"):
        select_rows(LABELS[:3], data(folds=5, fold=4), 1, NAMES)


def test_dropped_rows_are_never_chosen() -> None:
    kept = np.flatnonzero(np.arange(1000) % 3 != 0)
    for keys in ({}, {"train": 200}, {"train": 0.3}, {"per_class": 20}, {"folds": 3, "fold": 1}):
        train, validation = select(kept=kept, **keys)
        assert len(validation) > 0
        assert np.isin(np.concatenate([train, validation]), kept).all()
    train, validation = select(kept=kept, folds=3, fold=1)
    assert len(train) + len(validation) == len(kept)
