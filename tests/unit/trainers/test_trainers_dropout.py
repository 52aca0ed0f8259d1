"""Dropout that belongs to sequences: independent of companions and ranks, right in expectation, uncorrelated."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from trainers.engine.loop import dropout_seed  # noqa: E402
from trainers.model.batch import TokenBatch, make_layout, make_token_batch  # noqa: E402
from trainers.model.dropout import SequenceNoise, dropout_attention, dropout_texts, dropout_tokens  # noqa: E402
from trainers.model.folder import read_bert_config  # noqa: E402
from trainers.model.heads import BertForClassification  # noqa: E402

LENGTHS = (5, 3, 8)
IDS = (70, 11, 42)


def tokens(
    ids: tuple[int, ...], lengths: tuple[int, ...], probability: float = 0.25, step: int = 4
) -> list[np.ndarray]:
    """What dropout makes of ones, by sequence."""
    layout = make_layout(lengths, SequenceNoise(7, step, ids))
    x = dropout_tokens(paddle.ones([sum(lengths), 64]), probability, True, layout).numpy()
    return np.split(x, np.cumsum(lengths)[:-1])


def batch_of(lengths: tuple[int, ...], ids: tuple[int, ...]) -> TokenBatch:
    rows = [np.zeros(length, dtype=np.int64) for length in lengths]
    return make_token_batch(rows, rows, SequenceNoise(7, 4, ids))


def test_companions_and_order_do_not_matter() -> None:
    together = dict(zip(IDS, tokens(IDS, LENGTHS), strict=True))
    other_way = dict(zip(IDS[::-1], tokens(IDS[::-1], LENGTHS[::-1]), strict=True))
    for sample, length in zip(IDS, LENGTHS, strict=True):
        np.testing.assert_array_equal(tokens((sample,), (length,))[0], together[sample])
        np.testing.assert_array_equal(other_way[sample], together[sample])
    assert not np.array_equal(tokens((70,), (5,))[0], tokens((71,), (5,))[0])
    assert not np.array_equal(tokens((70,), (5,), step=4)[0], tokens((70,), (5,), step=5)[0])


def test_a_whole_model_does_not_depend_on_companions(tmp_path: Path) -> None:
    model = BertForClassification(read_bert_config(write_bert(tmp_path / "bert")).with_dropout(0.3), 3)
    model.train()
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 40, length) for length in LENGTHS]

    def logits(chosen: list[int], step: int = 2) -> np.ndarray:
        noise = SequenceNoise(1, step, [IDS[k] for k in chosen])
        result: np.ndarray = model(
            make_token_batch([rows[k] for k in chosen], [rows[k] * 0 for k in chosen], noise)
        ).numpy()
        return result

    together = logits([0, 1, 2])
    for k in range(3):
        np.testing.assert_allclose(logits([k])[0], together[k], rtol=1e-5, atol=1e-6)
    assert np.abs(logits([0, 1, 2], step=3) - together).max() > 1e-3
    model.eval()
    np.testing.assert_array_equal(logits([0, 1, 2], step=3), logits([0, 1, 2]))


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_share_and_expectation(probability: float) -> None:
    count = 400 * 64
    kept = np.concatenate(tokens((1, 2), (200, 200), probability))
    values = np.unique(kept)
    scale = 65536 / (65536 - round(probability * 65536))
    np.testing.assert_allclose(values, [0.0, scale], rtol=1e-6)
    assert math.isclose(scale, 1 / (1 - probability), rel_tol=1e-4)
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert abs((kept == 0).mean() - probability) < 4 * deviation
    # Neighbours in a row, in a column and in the next layer are independent: correlations within 4 standard errors of 0.
    layout = make_layout([200, 200], SequenceNoise(7, 4, (1, 2)))
    first, second = (
        dropout_tokens(paddle.ones([400, 64]), probability, True, layout).numpy().ravel() for _ in range(2)
    )
    pairs = [(first, second), (kept[:, 1:].ravel(), kept[:, :-1].ravel()), (kept[1:].ravel(), kept[:-1].ravel())]
    pairs.append((kept[:200].ravel(), kept[200:].ravel()))
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))


def test_off_means_untouched() -> None:
    layout = make_layout(LENGTHS, SequenceNoise(0, 0, IDS))
    x = paddle.rand([16, 4])
    assert dropout_tokens(x, 0.0, True, layout) is x
    assert dropout_tokens(x, 0.5, False, layout) is x
    rows = paddle.rand([3, 4])
    assert dropout_texts(rows, 0.0, True, batch_of(LENGTHS, IDS)) is rows
    assert dropout_attention(rows, 0.5, False, layout) is rows


def test_attention_probabilities_of_real_cells() -> None:
    """Each sequence's own cells are dropped alike whatever the rectangle around them; padding stays."""
    scores = paddle.ones([3 * 2, 8, 8])
    layout = make_layout(LENGTHS, SequenceNoise(7, 4, IDS))
    dropped = dropout_attention(scores, 0.5, True, layout).numpy().reshape(3, 2, 8, 8)
    for k, (sample, length) in enumerate(zip(IDS, LENGTHS, strict=True)):
        alone = make_layout([length], SequenceNoise(7, 4, [sample]))
        own = dropout_attention(paddle.ones([2, length, length]), 0.5, True, alone).numpy()
        np.testing.assert_array_equal(dropped[k, :, :length, :length], own)
        assert set(np.unique(own)) == {0.0, 2.0}
        assert (dropped[k, :, length:, :] == 2.0).all()
        assert (dropped[k, :, :, length:] == 2.0).all()
        assert not np.array_equal(own[0], own[1]), "each head has its own"


def test_one_row_per_text() -> None:
    dropped = dropout_texts(paddle.ones([3, 256]), 0.5, True, batch_of(LENGTHS, IDS)).numpy()
    alone = dropout_texts(paddle.ones([1, 256]), 0.5, True, batch_of((3,), (11,))).numpy()
    np.testing.assert_array_equal(dropped[1], alone[0])
    assert 90 < (dropped[0] == 0).sum() < 166


def test_gradients_pass_through_the_same_mask() -> None:
    x = paddle.ones([16, 64])
    x.stop_gradient = False
    out = dropout_tokens(x, 0.25, True, make_layout(LENGTHS, SequenceNoise(7, 4, IDS)))
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), out.numpy())


def test_without_noise_the_devices_generator_is_used() -> None:
    layout = make_layout([400])
    results = []
    for seed in (3, 3, 4):
        paddle.seed(seed)
        results.append(dropout_tokens(paddle.ones([400, 64]), 0.25, True, layout).numpy())
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert abs((results[0] == 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 25600)


def test_seeds_differ_in_everything_they_depend_on() -> None:
    keys = [
        (seed, step, micro, rank)
        for seed in (0, 1, 42)
        for step in range(20)
        for micro in range(3)
        for rank in range(4)
    ]
    seeds = [dropout_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [dropout_seed(*key) for key in keys]
    assert all(0 <= seed < 2**32 for seed in seeds)
