"""Sample order and its share-out to ranks."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.data.order import deal, epoch_order, micro_batches


@pytest.mark.parametrize("num", [0, 1, 2, 1000])
def test_an_epoch_holds_every_sample_once(num: int) -> None:
    order = epoch_order(num, seed=7, epoch=3)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(num))


def test_order_depends_on_seed_and_epoch_only() -> None:
    first = epoch_order(1000, 7, 0)
    assert np.array_equal(first, epoch_order(1000, 7, 0))
    others = [epoch_order(1000, 7, 1), epoch_order(1000, 8, 0)]
    for other in others:
        # two random permutations of n agree in one place on average
        assert (first == other).sum() < 10


def philox_words(key: int, count: int) -> list[int]:
    """Philox4x64-10 (Salmon et al. 2011) in plain integers; numpy starts at counter 1."""
    mask = (1 << 64) - 1
    words: list[int] = []
    for block in range(1, count // 4 + 2):
        c0, c1, c2, c3 = block, 0, 0, 0
        k0, k1 = key & mask, key >> 64
        for _ in range(10):
            one, two = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = (two >> 64) ^ c1 ^ k0, two & mask, (one >> 64) ^ c3 ^ k1, one & mask
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += [c0, c1, c2, c3]
    return words[:count]


def test_order_is_the_ranks_of_philox_words_keyed_by_seed_purpose_and_epoch() -> None:
    words = philox_words((42 << 64) | (1 << 48) | 3, 100)
    assert epoch_order(100, 42, 3).tolist() == sorted(range(100), key=words.__getitem__)


def test_order_has_no_bias_of_place() -> None:
    places = np.array([np.flatnonzero(epoch_order(10, seed, 0) == 0)[0] for seed in range(2000)])
    counts = np.bincount(places, minlength=10)
    chi_square = ((counts - 200.0) ** 2 / 200.0).sum()
    assert chi_square < 27.9  # 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_a_batch_is_dealt_whole_evenly_and_balanced(world_size: int) -> None:
    rng = np.random.default_rng(world_size)
    for batch in (1, 2, 5, 24, 48, 101):
        lengths = rng.integers(3, 512, batch)
        hands = deal(lengths, world_size)
        assert len(hands) == world_size
        assert sorted(np.concatenate(hands).tolist()) == list(range(batch))
        counts = [len(hand) for hand in hands]
        assert max(counts) - min(counts) <= 1
        loads = [int(lengths[hand].sum()) for hand in hands]
        # dealing long to short in rounds never lets loads differ by more than one sequence
        assert max(loads) - min(loads) <= lengths.max()
        again = deal(lengths, world_size)
        assert all(np.array_equal(one, two) for one, two in zip(hands, again, strict=True))


def test_dealing_balances_tokens_where_plain_halves_would_not() -> None:
    lengths = np.array([500, 400, 300, 200, 10, 10, 10, 10])
    loads = [int(lengths[hand].sum()) for hand in deal(lengths, 2)]
    assert sorted(loads) == [720, 720]  # 500 + 200 + 20 and 400 + 300 + 20


def test_ranks_beyond_the_batch_get_nothing() -> None:
    hands = deal(np.array([10, 20]), 4)
    assert sorted(len(hand) for hand in hands) == [0, 0, 1, 1]
    assert all(hand.dtype == np.int64 for hand in hands)


def test_micro_batches_are_of_similar_lengths_and_keep_every_position() -> None:
    lengths = np.array([5, 90, 7, 80, 6, 100, 8])
    positions = np.array([0, 1, 2, 3, 4, 5])
    parts = micro_batches(positions, lengths, 2)
    assert [part.tolist() for part in parts] == [[5, 1], [3, 2], [4, 0]]
    assert [part.tolist() for part in micro_batches(positions, lengths, None)] == [[5, 1, 3, 2, 4, 0]]
    assert micro_batches(np.array([], dtype=np.int64), lengths, 2) == []
