"""Stratified validation splits and subsets."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import DataError
from trainers.data.split import select_rows, subset_rows

LABELS = np.repeat([0, 1, 2], [500, 300, 200])[np.random.default_rng(0).permutation(1000)]


def test_a_share_is_held_out_of_every_class() -> None:
    train, validation = select_rows(LABELS, 0.1, None, seed=1)
    assert np.bincount(LABELS[validation]).tolist() == [50, 30, 20]
    assert np.bincount(LABELS[train]).tolist() == [450, 270, 180]
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(1000))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


def test_a_whole_number_is_a_number_of_rows() -> None:
    train, validation = select_rows(LABELS, 7, None, seed=1)
    # shares of 7: 3.5, 2.1, 1.4; floors 3, 2, 1 and one more to the largest remainder
    assert np.bincount(LABELS[validation]).tolist() == [4, 2, 1]
    assert len(train) == 993


def test_the_subset_is_drawn_before_validation_rows() -> None:
    train, validation = select_rows(LABELS, 0.1, 100, seed=1)
    assert (len(train), len(validation)) == (90, 10)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), subset_rows(LABELS, 100, seed=1))
    assert np.bincount(LABELS[np.concatenate([train, validation])]).tolist() == [50, 30, 20]


def test_no_validation() -> None:
    for nothing in (0, 0.0):
        train, validation = select_rows(LABELS, nothing, None, seed=1)
        assert (len(train), len(validation)) == (1000, 0)


def test_seeds_differ_and_repeat() -> None:
    one, two, other = (select_rows(LABELS, 0.1, None, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert len(np.intersect1d(one, other)) < 40  # 10 expected by chance


def test_a_subset_larger_than_the_data_is_all_of_it() -> None:
    assert np.array_equal(subset_rows(LABELS, 5000, 1), np.arange(1000))


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.validation: 1000 holds out 1000 of 1000"):
        select_rows(LABELS, 1000, None, seed=1)
