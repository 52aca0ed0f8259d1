"""The same training at 1, 2 and 4 ranks: same samples, same losses, same predictions; real launches of a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.tiny import CLASSES, write_bert, write_corpus, write_tsv
from tests.support.training import Ranks, lines, make_run, untimed

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow]

WORLDS = (1, 2, 4)
BATCH = 7
TRAIN_ROWS, TEST_ROWS, VALIDATION_ROWS = 65, 37, 10  # 55 rows to train on: 7 batches of 7 and one of 6


ORIGINAL = {"schedule": "bert_adam", "bias_correction": False, "clip_per_parameter": True}
"""The optimizer of the paper's own code."""


def config(folder: Path) -> dict[str, Any]:
    """Accumulation, dropout, a batch that no number of ranks divides, a last batch smaller than 4 ranks, stages of every kind."""
    write_bert(folder / "bert")
    write_tsv(folder / "table" / "train.tsv", TRAIN_ROWS, seed=1)
    write_tsv(folder / "table" / "test.tsv", TEST_ROWS, seed=2)
    write_corpus(folder / "corpus" / "corpus.txt", 40, seed=3)
    corpus = {"dataset": "text", "path": str(folder / "corpus")}
    common = {"batch": BATCH, "lr": 1e-3, "max_length": 24}
    return {
        "model": str(folder / "bert"),
        "data": {"dataset": "tsv", "path": str(folder / "table"), "validation": VALIDATION_ROWS},
        "stages": {
            "pretrain": {
                **common,
                "task": "pretrain",
                "data": corpus,
                "max_steps": 30,
                "micro_batch": 2,
                "splits": ["train"],
            },
            "plain-mlm": {
                **common,
                "task": "pretrain",
                "data": corpus,
                "max_steps": 12,
                "nsp": False,
                "init": "model",
                "splits": ["train"],
            },
            "finetune": {
                **common,
                "task": "finetune",
                "epochs": 4,
                "lr": 1e-2,
                "micro_batch": 2,
                "evaluate_every": 5,
                "init": "model",
            },
            "tail": {
                **common,
                "task": "finetune",
                "max_steps": 12,
                "batch": 26,
                "layers": [0],
                "layer_decay": 0.8,
                "dropout": 0.2,
                "ema": 0.9,
                "init": "model",
            },
            "fractions": {
                **common,
                **ORIGINAL,
                "task": "finetune",
                "max_steps": 12,
                "batch": 26,
                "micro_batch": 4,
                "max_length": 8,
                "hierarchical": "attention",
                "freeze": 1,
                "ema": 0.9,
                "plain_rate": 5e-3,
                "init": "model",
            },
            "features": {
                **common,
                **ORIGINAL,
                "task": "finetune",
                "max_steps": 40,
                "lr": 1e-2,
                "classifier": "bilstm",
                "lstm_size": 8,
                "freeze": "encoder",
                "init": "model",
            },
        },
        "train": {"log_every": 1, "log_samples": True, "checkpoint_every": 10},
    }


STAGES = ("pretrain", "plain-mlm", "finetune", "tail", "fractions", "features")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The finished run at every world size."""
    folder = tmp_path_factory.mktemp("worlds")
    values = config(folder)
    made = {}
    for world in WORLDS:
        made[world] = make_run(folder / f"world{world}", values, folder / "cache")
        Ranks(made[world], world, ",".join(STAGES)).wait()
    return made


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", WORLDS[1:])
def test_samples_and_losses_do_not_depend_on_the_ranks(runs: dict[int, Path], stage: str, world: int) -> None:
    alone, many = (lines(runs[each] / stage / "samples.jsonl") for each in (1, world))
    assert alone == many
    one, other = (untimed(runs[each] / stage / "metrics.jsonl") for each in (1, world))
    assert [line["step"] for line in one] == list(range(1, len(alone) + 1))
    assert len({line["loss"] for line in one}) == len(one), "every step has a loss of its own"
    for a, b in zip(one, other, strict=True):
        assert set(a) == set(b)
        for key in ("step", "epoch", "lr", "samples", "tokens", "skipped_steps"):
            assert a[key] == b[key], key
        for key in ("loss", "grad_norm"):
            assert math.isclose(a[key], b[key], rel_tol=1e-5), (a["step"], key, a[key], b[key])
        assert all(math.isclose(a["losses"][term], b["losses"][term], rel_tol=1e-5) for term in a["losses"])
        assert math.isclose(a["loss"], sum(a["losses"].values()), rel_tol=1e-6)
        assert 0.0 <= a["padding"] < 1.0


def test_every_epoch_has_every_row_once_and_the_last_batch_is_short(runs: dict[int, Path]) -> None:
    steps = lines(runs[4] / "finetune" / "samples.jsonl")
    assert [len(step["ids"]) for step in steps] == [7, 7, 7, 7, 7, 7, 7, 6] * 4
    epochs = [[row for step in steps[start : start + 8] for row in step["ids"]] for start in range(0, 32, 8)]
    assert len(set(map(tuple, epochs))) == 4, "each epoch has an order of its own"
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 1
    assert len(set(epochs[0])) == TRAIN_ROWS - VALIDATION_ROWS
    assert [len(step["ids"]) for step in lines(runs[4] / "tail" / "samples.jsonl")][:3] == [26, 26, 3], (
        "3 samples for 4 ranks"
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", WORLDS[1:])
def test_the_weights_agree(runs: dict[int, Path], stage: str, world: int) -> None:
    one, other = (load_file(str(runs[each] / stage / "model" / "model.safetensors")) for each in (1, world))
    start = load_file(str(runs[1].parent / "bert" / "model.safetensors"))
    assert set(one) == set(other)
    moved = 0
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=2e-5, err_msg=name)
        full_name = name if name in start else f"bert.{name}"
        moved += full_name in start and not np.allclose(one[name], start[full_name], atol=1e-4)
    assert (moved == 0) if stage == "features" else (moved > 15), "training has changed the weights"


FROZEN = {"fractions": ("embeddings.", "encoder.layer.0."), "features": ("embeddings.", "encoder.")}


@pytest.mark.parametrize("stage", FROZEN)
@pytest.mark.parametrize("world", WORLDS)
def test_frozen_parts_keep_every_bit_and_have_no_optimizer_state(runs: dict[int, Path], stage: str, world: int) -> None:
    start = load_file(str(runs[1].parent / "bert" / "model.safetensors"))
    result = load_file(str(runs[world] / stage / "model" / "model.safetensors"))
    frozen = [name for name in result if name.startswith(FROZEN[stage])]
    assert len(frozen) == 5 + 16 * (1 if stage == "fractions" else 2)
    for name in frozen:
        np.testing.assert_array_equal(result[name], start[f"bert.{name}"], err_msg=name)
    checkpoint = sorted((runs[world] / stage / "checkpoints").iterdir())[-1]
    state, weights = (load_file(str(checkpoint / f"{file}.safetensors")) for file in ("optimizer", "model"))
    stepped = {name.split("/")[1] for name in state}
    assert stepped == {name for name in weights if not _is_frozen(name, stage)}
    assert all((state[name] == 0.0).all() for name in state if "_pow_acc/" in name), "no bias correction"
    if stage == "fractions":
        assert set(load_file(str(checkpoint / "ema.safetensors"))) == stepped


def _is_frozen(name: str, stage: str) -> bool:
    blocks = "bert.encoder.layers.0." if stage == "fractions" else "bert.encoder."
    return name.startswith(("bert.embeddings.", blocks))


def test_the_rate_is_that_of_the_original_code(runs: dict[int, Path]) -> None:
    rates = [line["lr"] for line in lines(runs[2] / "fractions" / "metrics.jsonl")]
    shares = [step / 12 / 0.1 if step / 12 < 0.1 else 1 - step / 12 for step in range(12)]
    np.testing.assert_allclose(rates, [1e-3 * share for share in shares], rtol=1e-12)


def test_losses_learn(runs: dict[int, Path]) -> None:
    for stage, least in (("pretrain", 0.15), ("finetune", 0.3), ("features", 0.3)):
        losses = [line["loss"] for line in lines(runs[2] / stage / "metrics.jsonl")]
        assert np.mean(losses[-5:]) < np.mean(losses[:5]) - least, stage
    assert json.loads((runs[2] / "finetune" / "eval.json").read_text())["accuracy"] > 0.8


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_predictions_are_the_test_items_in_input_order(runs: dict[int, Path]) -> None:
    source = table(runs[1].parent / "table" / "test.tsv")[1:]
    for stage in ("finetune", "tail", "fractions", "features"):
        tables = {world: table(runs[world] / stage / "predictions.tsv") for world in WORLDS}
        assert tables[1][0] == ["index", "label", "prediction", *(f"p({name})" for name in CLASSES)]
        for rows in (tables[world][1:] for world in WORLDS):
            assert [int(row[0]) for row in rows] == list(range(TEST_ROWS))
            assert [row[1] for row in rows] == [label for _, label in source]
            chances = np.array([[float(value) for value in row[3:]] for row in rows])
            np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=3e-6)
            assert [row[2] for row in rows] == [CLASSES[k] for k in chances.argmax(axis=1)]
            first = np.array([[float(value) for value in row[3:]] for row in tables[1][1:]])
            np.testing.assert_allclose(chances, first, atol=1e-4)


def test_eval_json_is_what_scikit_learn_says_of_the_predictions(runs: dict[int, Path]) -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

    for world in WORLDS:
        result = json.loads((runs[world] / "finetune" / "eval.json").read_text())
        rows = table(runs[world] / "finetune" / "predictions.tsv")[1:]
        labels, predicted = [row[1] for row in rows], [row[2] for row in rows]
        chances = np.array([[float(value) for value in row[3:]] for row in rows])
        chances /= chances.sum(axis=1, keepdims=True)  # they are rounded to 6 digits
        assert result["n"] == TEST_ROWS
        assert result["accuracy"] == accuracy_score(labels, predicted)
        assert math.isclose(result["macro_f1"], f1_score(labels, predicted, labels=CLASSES, average="macro"))
        assert math.isclose(result["error_rate"], 100 - 100 * result["accuracy"])
        assert math.isclose(result["loss"], log_loss(labels, chances, labels=CLASSES), rel_tol=1e-3, abs_tol=2e-5)
        assert result["confusion"] == confusion_matrix(labels, predicted, labels=CLASSES).tolist()
        majority = [result["majority_label"]] * TEST_ROWS
        assert result["majority_accuracy"] == accuracy_score(labels, majority)
        done = json.loads((runs[world] / "finetune" / "done.json").read_text())
        assert done["metrics"]["accuracy"] == result["accuracy"]
        assert result["step"] == done["best_step"]


def test_the_records_tell_the_story(runs: dict[int, Path]) -> None:
    ranks = [
        json.loads(line) for line in (runs[2] / "attempts/000/node-0/rank-0.records.jsonl").read_text().splitlines()
    ]
    starts = [record for record in ranks if record["type"] == "stage_start"]
    assert [(record["stage"], record["index"], record["stages"], record["start_step"]) for record in starts] == [
        (stage, number, 6, 0) for number, stage in enumerate(STAGES, start=1)
    ]
    assert [record["total_steps"] for record in starts] == [30, 12, 32, 12, 12, 40]
    assert (starts[2]["num_examples"], starts[2]["steps_per_epoch"]) == (55, 8)
    evaluated = [
        r["step"] for r in ranks if r["type"] == "eval" and r["stage"] == "finetune" and r["split"] == "validation"
    ]
    assert evaluated == [5, 10, 15, 20, 25, 30, 32]
    saved = [record["step"] for record in ranks if record["type"] == "checkpoint" and record["stage"] == "pretrain"]
    assert saved == [10, 20, 30]
    assert [record["reason"] for record in ranks if record["type"] == "stage_end"] == ["finished"] * 6
    other = [
        json.loads(line) for line in (runs[2] / "attempts/000/node-0/rank-1.records.jsonl").read_text().splitlines()
    ]
    assert {record["type"] for record in other} <= {"phase", "device", "message"}
    assert all(record["rank"] == 1 for record in other)
    assert (other[-1]["type"], other[-1]["phase"]) == ("phase", "done")
