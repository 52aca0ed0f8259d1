"""Masking: budgets, statistics, independence of the batch, whole words."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.data.masking import Masking, mask_batch, mask_tokens

CLS, SEP, MASK, VOCAB = 101, 102, 103, 30000
CONTINUATION = np.zeros(VOCAB, dtype=bool)
CONTINUATION[20000:] = True


def settings(*, whole_word: bool = False, max_predictions: int = 20, probability: float = 0.15) -> Masking:
    return Masking((0, CLS, SEP), VOCAB, MASK, probability, max_predictions, whole_word, CONTINUATION)


def sequences(num: int, length: int, seed: int = 0, high: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """`num` instances [CLS] tokens [SEP], and their offsets."""
    ids = np.random.default_rng(seed).integers(1000, high, (num, length)).astype(np.int32)
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids.reshape(-1), np.arange(num + 1) * length


@pytest.mark.parametrize(
    ("tokens", "predictions"),
    [(1, 1), (3, 1), (10, 2), (16, 2), (17, 3), (100, 15), (126, 19), (130, 20), (500, 20)],
)
def test_counts_are_15_percent_of_the_real_tokens_rounded_within_1_and_20(tokens: int, predictions: int) -> None:
    ids, offsets = sequences(50, tokens + 2)
    _, positions, _, per_instance = mask_batch(ids, offsets, np.arange(50), 1, 0, settings())
    assert per_instance.tolist() == [predictions] * 50
    assert not np.isin(ids[positions], [CLS, SEP]).any()
    assert len(np.unique(positions)) == 50 * predictions
    assert (np.diff(positions) > 0).all()


def test_labels_are_the_true_ids_and_other_positions_are_untouched() -> None:
    ids, offsets = sequences(200, 64)
    before = ids.copy()
    masked, positions, labels, _ = mask_batch(ids, offsets, np.arange(200), 1, 0, settings())
    assert np.array_equal(ids, before)
    assert np.array_equal(labels, ids[positions])
    elsewhere = np.ones(len(ids), dtype=bool)
    elsewhere[positions] = False
    assert np.array_equal(masked[elsewhere], ids[elsewhere])
    assert masked.dtype == positions.dtype == labels.dtype == np.int32


def test_80_10_10() -> None:
    ids, offsets = sequences(3000, 128)
    masked, positions, labels, _ = mask_batch(ids, offsets, np.arange(3000), 5, 0, settings())
    new = masked[positions]
    counts = np.array([(new == MASK).sum(), (new == labels).sum(), ((new != MASK) & (new != labels)).sum()])
    expected = counts.sum() * np.array([0.8, 0.1, 0.1])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, p = 0.001
    random = new[(new != MASK) & (new != labels)]
    tenths = np.bincount(random * 10 // VOCAB, minlength=10)
    mean = len(random) / 10
    assert ((tenths - mean) ** 2 / mean).sum() < 27.9  # 9 degrees of freedom: any entry of the vocabulary


def test_every_position_is_chosen_equally_often() -> None:
    ids, offsets = sequences(4000, 34)  # 32 real tokens, 5 predictions each
    _, positions, _, _ = mask_batch(ids, offsets, np.arange(4000), 5, 0, settings())
    counts = np.bincount(positions % 34, minlength=34)
    assert counts[0] == counts[33] == 0
    expected = 4000 * 5 / 32
    assert ((counts[1:33] - expected) ** 2 / expected).sum() < 61.1  # 31 degrees of freedom, p = 0.001


@pytest.mark.parametrize("whole_word", [False, True])
def test_an_instance_is_masked_alike_alone_and_in_any_batch(whole_word: bool) -> None:
    ids, offsets = sequences(40, 50, high=VOCAB)
    masking = settings(whole_word=whole_word)
    instances = np.arange(40) + 1000
    masked, positions, labels, per_instance = mask_batch(ids, offsets, instances, 3, 2, masking)
    first = 0
    for place in range(40):
        one = ids[offsets[place] : offsets[place + 1]]
        alone = mask_tokens(
            one,
            rng_key=(3, 2, 1000 + place),
            special_ids=masking.special_ids,
            vocab_size=VOCAB,
            mask_id=MASK,
            probability=0.15,
            max_predictions=20,
            whole_word=whole_word,
            is_continuation=CONTINUATION,
        )
        last = first + int(per_instance[place])
        assert np.array_equal(alone[0], masked[offsets[place] : offsets[place + 1]])
        assert np.array_equal(alone[1], positions[first:last] - offsets[place])
        assert np.array_equal(alone[2], labels[first:last])
        first = last
    world_2 = [
        mask_batch(ids[half * 1000 :][:1000], offsets[:21], instances[half * 20 :][:20], 3, 2, masking)
        for half in (0, 1)
    ]
    assert np.array_equal(np.concatenate([part[0] for part in world_2]), masked)


def test_epochs_seeds_and_instances_get_their_own_masks() -> None:
    ids, offsets = sequences(1, 128)
    drawn = {
        tuple(mask_batch(ids, offsets, np.array([instance]), seed, epoch, settings())[1].tolist())
        for seed in range(3)
        for epoch in range(3)
        for instance in range(3)
    }
    assert len(drawn) == 27


def test_whole_words_are_masked_whole() -> None:
    ids, offsets = sequences(500, 64, seed=3, high=VOCAB)
    _, positions, _, per_instance = mask_batch(ids, offsets, np.arange(500), 1, 0, settings(whole_word=True))
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[positions] = True
    continues = CONTINUATION[ids]
    continues[offsets[:-1] + 1] = False  # what follows [CLS] begins a word, whatever it is
    inside = np.flatnonzero(continues)
    budget = 9  # 62 real tokens: 9.3
    whole = chosen[inside] == chosen[inside - 1]
    assert whole.all()
    assert per_instance.max() <= budget
    assert per_instance.mean() > budget - 1


def test_a_single_word_longer_than_the_budget_is_masked_as_far_as_it_goes() -> None:
    ids = np.array([CLS, 1500, *range(20000, 20010), SEP], dtype=np.int32)
    _, positions, _, per_instance = mask_batch(ids, np.array([0, 13]), np.array([0]), 1, 0, settings(whole_word=True))
    assert per_instance.tolist() == [2]  # 11 real tokens: 1.65
    assert positions.tolist() == [1, 2]


def test_words_do_not_reach_into_the_next_instance() -> None:
    ids = np.array([1500, 1501, 20000, 20001], dtype=np.int32)  # no special tokens between them
    for instance in range(20):
        together = mask_batch(ids, np.array([0, 2, 4]), np.array([instance, 7]), 1, 0, settings(whole_word=True))
        assert together[3].tolist() == [1, 1]


def test_instances_without_a_real_token_predict_nothing() -> None:
    ids = np.array([CLS, SEP, CLS, 1500, SEP], dtype=np.int32)
    _, positions, _, per_instance = mask_batch(ids, np.array([0, 2, 5]), np.array([0, 1]), 1, 0, settings())
    assert per_instance.tolist() == [0, 1]
    assert positions.tolist() == [3]
