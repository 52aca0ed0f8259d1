"""Held-out evaluation of a pre-training model against the formula, row by row in NumPy; and pairs that are not asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

paddle = pytest.importorskip("paddle", reason="needs Paddle")

from configs.schema import PretrainStage  # noqa: E402
from tests.support.tiny import VOCABULARY, write_bert  # noqa: E402
from trainers.data.instances import NO_NEXT  # noqa: E402
from trainers.data.pretraining import Masked  # noqa: E402
from trainers.engine.amp import AmpPolicy  # noqa: E402
from trainers.engine.ranks import Ranks  # noqa: E402
from trainers.engine.reading import score_held_out  # noqa: E402
from trainers.model.batch import make_token_batch  # noqa: E402
from trainers.model.folder import build_model, load_folder, read_bert_config  # noqa: E402
from trainers.tasks.pretrain import PretrainTask, make_masked_batch  # noqa: E402
from trainers.trained import SilentRecorder  # noqa: E402

STAGE = PretrainStage(task="pretrain", max_steps=1, max_length=32)


class Made:
    """Instances of random tokens: lengths, predictions and labels of their own; some without a second part."""

    def __init__(self, next_labels: list[int]) -> None:
        rng = np.random.default_rng(0)
        self.rows: list[dict[str, Any]] = []
        for label in next_labels:
            length = int(rng.integers(5, 30))
            positions = np.sort(rng.choice(np.arange(1, length - 1), int(rng.integers(1, 4)), replace=False))
            ids = rng.integers(5, len(VOCABULARY), length)
            answers = rng.integers(5, len(VOCABULARY), len(positions))
            types = (np.arange(length) > length // 2) * (label != NO_NEXT)
            self.rows.append({"ids": ids, "types": types, "positions": positions, "labels": answers, "next": label})
        self.lengths = np.array([len(row["ids"]) for row in self.rows])

    def masked(self, items: np.ndarray) -> Masked:
        rows = [self.rows[item] for item in items]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[items])])
        places = [row["positions"] + start for row, start in zip(rows, offsets[:-1], strict=True)]
        return Masked(
            np.concatenate([row["ids"] for row in rows]).astype(np.int32),
            np.concatenate([row["types"] for row in rows]).astype(np.uint8),
            offsets,
            np.concatenate(places).astype(np.int32),
            np.concatenate([row["labels"] for row in rows]).astype(np.int32),
            np.array([row["next"] for row in rows], dtype=np.int32),
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_bert(tmp_path_factory.mktemp("reading") / "bert")
    made = build_model(STAGE, read_bert_config(folder), 0)
    load_folder(made, folder)
    made.train()
    return made


def score(model: Any, instances: Made, nsp: bool = True) -> dict[str, float]:
    policy, ranks = AmpPolicy("off", "float32", ""), Ranks(0, 1, "cpu")
    return score_held_out(model, instances, nsp, policy, ranks, SilentRecorder(), "validation", lambda: False)


def test_the_figures_are_those_of_the_formula(model: Any) -> None:
    instances = Made([0, 1, NO_NEXT, 1, 0, NO_NEXT, 1] * 25)
    found = score(model, instances)
    assert model.training, "the model is left as it was"
    model.eval()
    losses, right, nsp_losses, nsp_right = [], [], [], []
    for row in instances.rows:
        batch = make_token_batch([row["ids"]], [row["types"]])
        mlm, nsp = (each.numpy().astype(np.float64) for each in model(batch, paddle.to_tensor(row["positions"])))
        for logits, label in zip(mlm, row["labels"], strict=True):
            losses.append(math.log(np.exp(logits).sum()) - logits[label])
            right.append(logits.argmax() == label)
        if row["next"] != NO_NEXT:
            nsp_losses.append(math.log(np.exp(nsp[0]).sum()) - nsp[0][row["next"]])
            nsp_right.append(nsp[0].argmax() == row["next"])
    model.train()
    assert found["n"] == 175
    assert math.isclose(found["mlm_loss"], np.mean(losses), rel_tol=1e-5)
    assert math.isclose(found["perplexity"], math.exp(np.mean(losses)), rel_tol=1e-4)
    assert math.isclose(found["mlm_accuracy"], np.mean(right))
    assert math.isclose(found["nsp_loss"], np.mean(nsp_losses), rel_tol=1e-5)
    assert math.isclose(found["nsp_accuracy"], np.mean(nsp_right))
    assert len(nsp_losses) == 125


def test_without_pairs_there_are_no_figures_of_pairs(model: Any) -> None:
    assert set(score(model, Made([NO_NEXT] * 5))) == {"mlm_accuracy", "mlm_loss", "perplexity", "n"}


@pytest.mark.parametrize("labels", [[NO_NEXT] * 4, [NO_NEXT, 1, NO_NEXT, 0]])
def test_a_sequence_alone_counts_in_no_pair_loss(model: Any, labels: list[int]) -> None:
    instances = Made(labels)
    task = PretrainTask.__new__(PretrainTask)  # losses need nothing of it
    model.eval()
    batch = make_masked_batch(instances.masked(np.arange(4)), True, None, 1.0)
    pairs = [item for item, label in enumerate(labels) if label != NO_NEXT]
    assert batch.counts == (float(sum(len(row["labels"]) for row in instances.rows)), float(len(pairs)))
    mlm, nsp = task.losses(model, batch)
    expected = 0.0
    if pairs:
        only = make_masked_batch(instances.masked(np.array(pairs)), True, None, 1.0)
        expected = float(task.losses(model, only)[1])
        assert expected > 0
    assert math.isclose(float(nsp), expected, rel_tol=1e-5)
    (mlm + nsp).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(bool(paddle.isfinite(gradient).all()) for gradient in gradients)
    model.clear_gradients()
    model.train()
