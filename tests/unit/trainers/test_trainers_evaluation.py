"""Evaluation: every row exactly once at any number of ranks, scores by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import write_bert

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from trainers.engine.amp import AmpPolicy  # noqa: E402
from trainers.engine.evaluation import (  # noqa: E402
    BATCH_TOKENS,
    Predictions,
    make_batches,
    predict_rows,
    predictions_table,
    report,
    score,
    softmax,
)
from trainers.engine.loop import StopAgreed  # noqa: E402
from trainers.engine.ranks import Ranks  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import read_bert_config  # noqa: E402
from trainers.model.heads import BertForClassification  # noqa: E402

OFF = AmpPolicy("off", "float32", "")


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 13, 200, 1001])
@pytest.mark.parametrize("longest", [4, 512, 4096])
def test_every_row_exactly_once(world: int, count: int, longest: int) -> None:
    lengths = np.random.default_rng(count).integers(1, longest + 1, count)
    hands = make_batches(np.arange(count), lengths, world)
    assert len(hands) == world
    assert len({len(hand) for hand in hands}) == 1, "ranks meet after every batch"
    assert sorted(int(i) for hand in hands for batch in hand for i in batch) == list(range(count))
    for hand in hands:
        for batch in hand:
            assert len(batch) <= 1 or len(batch) * lengths[batch].max() <= BATCH_TOKENS
            assert len(batch) == 0 or np.all(np.diff(lengths[batch]) <= 0)
    alone = {tuple(batch) for batch in make_batches(np.arange(count), lengths, 1)[0] if len(batch)}
    assert {tuple(batch) for hand in hands for batch in hand if len(batch)} == alone, (
        "the same batches at any number of ranks"
    )


class Encoder:
    """Made-up texts, row k of length sizes[k]."""

    def __init__(self, sizes: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.texts = [rng.integers(5, 40, size) for size in sizes]

    def lengths(self) -> np.ndarray:
        return np.array([len(text) for text in self.texts])

    def __call__(self, row: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self.texts[row], np.zeros_like(self.texts[row]))]


class Listener:
    stage = "finetune"

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def beat(self) -> None:
        pass

    def record(self, kind: str, **fields: Any) -> None:
        self.records.append({"type": kind, **fields})


def made_up(sizes: list[int]) -> Any:
    return Encoder(sizes)


def test_probabilities_in_the_order_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.engine.evaluation.BATCH_TOKENS", 20)
    model = BertForClassification(read_bert_config(write_bert(tmp_path / "bert")), 3)
    encoder, listener = made_up([7, 3, 12, 5, 9, 1, 30]), Listener()
    rows = np.array([6, 1, 4, 0, 3])
    model.train()
    found = predict_rows(model, encoder, rows, 3, OFF, Ranks(0, 1, "cpu"), listener, "test", lambda: False)
    assert model.training
    assert found.rows.tolist() == rows.tolist()
    model.eval()
    for row, chances in zip(rows, found.probabilities, strict=True):
        ((ids, types),) = encoder(int(row))
        logits = model(make_token_batch([ids], [types])).numpy()[0].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(chances, expected, rtol=1e-5)
    assert [record["done"] for record in listener.records][-1] == 5
    assert all(record["total"] == 5 and record["type"] == "eval_progress" for record in listener.records)
    assert len(listener.records) >= 3


def test_a_stop_in_an_evaluation_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.engine.evaluation.BATCH_TOKENS", 20)
    model = BertForClassification(read_bert_config(write_bert(tmp_path / "bert")), 3)
    model.train()
    asked = iter([False, True])
    with pytest.raises(StopAgreed):
        predict_rows(
            model,
            made_up([15] * 5),
            np.arange(5),
            3,
            OFF,
            Ranks(0, 1, "cpu"),
            Listener(),
            "validation",
            lambda: next(asked),
        )
    assert model.training


def chances(*predicted: int) -> np.ndarray:
    """0.8 for the predicted class of three, 0.1 for each other."""
    return np.array([[0.8 if k == best else 0.1 for k in range(3)] for best in predicted])


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    scores = score(labels, chances(0, 0, 1, 1, 0, 0))
    assert scores["accuracy"] == 3 / 6
    assert scores["error_rate"] == 50.0
    # class 0: precision 2/4, recall 2/3 -> 4/7; class 1: 1/2, 1/2 -> 1/2; class 2 is never predicted -> 0
    assert math.isclose(scores["macro_f1"], (4 / 7 + 1 / 2 + 0) / 3)
    assert math.isclose(scores["loss"], -(3 * math.log(0.8) + 3 * math.log(0.1)) / 6)
    assert scores["n"] == 6
    assert set(scores) == {"accuracy", "macro_f1", "error_rate", "loss", "n"}


def test_classes_that_do_not_occur_count_in_macro_f1() -> None:
    assert math.isclose(score(np.array([0, 1]), chances(0, 1))["macro_f1"], 2 / 3)


def test_an_impossible_class_gives_a_finite_loss() -> None:
    assert math.isfinite(score(np.array([0]), np.array([[0.0, 1.0]]))["loss"])


def test_report_with_confusion_and_majority() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = Predictions(np.arange(6), chances(0, 0, 1, 1, 0, 0))
    result = report(labels, predictions, ["a", "b", "c"], 1)
    assert result["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]], "rows: labels, columns: predictions"
    assert result["label_names"] == ["a", "b", "c"]
    assert (result["majority_label"], result["majority_accuracy"]) == ("b", 2 / 6)
    assert math.isclose(result["majority_macro_f1"], (2 * 2 / (2 * 2 + 4)) / 3)
    assert {key: result[key] for key in ("accuracy", "n")} == {"accuracy": 0.5, "n": 6}


def test_the_table_of_predictions() -> None:
    table = predictions_table(np.array([1, 0]), Predictions(np.array([4, 9]), chances(1, 2)), ["a", "b", "c"])
    assert table == (
        "index\tlabel\tprediction\tp(a)\tp(b)\tp(c)\n4\tb\tb\t0.100000\t0.800000\t0.100000\n9\ta\tc\t0.100000\t0.100000\t0.800000\n"
    )


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(
        softmax(np.array([[1000.0, 1000.0, -1000.0], [0.0, math.log(3.0), -math.inf]])),
        [[0.5, 0.5, 0], [0.25, 0.75, 0]],
    )
