"""Multi-task fine-tuning at 1, 2 and 4 ranks, killed and resumed, and the single-task stage after it. Real launches of a tiny model."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.tiny import CLASSES, write_bert, write_tsv
from tests.support.training import ROOT, Ranks, lines, make_run, rank_environment, untimed

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.fault]

WORLDS = (1, 2, 4)
STEPS = 24
LABELS = {"three": CLASSES, "two": CLASSES[:2]}
STAGES = ("multitask", "single")
BOTH = ",".join(STAGES)


def config(folder: Path) -> dict[str, Any]:
    """Dropout, accumulation, EMA, weights; batches that no number of ranks divides, some smaller than 4 ranks."""
    write_bert(folder / "bert")
    for name, rows in (("three", 40), ("two", 20)):
        write_tsv(folder / name / "train.tsv", rows, seed=1, classes=LABELS[name])
        write_tsv(folder / name / "test.tsv", 15, seed=2, classes=LABELS[name])
    data = {name: {"dataset": "tsv", "path": str(folder / name), "validation": 5} for name in LABELS}
    common = {"batch": 7, "micro_batch": 2, "lr": 5e-3, "max_length": 24}
    return {
        "model": str(folder / "bert"),
        "stages": {
            "multitask": {
                **common,
                "data_sets": data,
                "mixing": {"three": 1, "two": 3},
                "max_steps": STEPS,
                "ema": 0.8,
                "evaluate_every": 5,
                "best_metric": "loss",
            },
            "single": {**common, "task": "finetune", "data": data["two"], "max_steps": 3, "lr": 1e-4},
        },
        "train": {"log_every": 2, "log_samples": True, "checkpoint_every": 1, "keep_checkpoints": 99},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("multitask")
    (path / "values.json").write_text(json.dumps(config(path)))
    return path


def new_run(folder: Path, name: str) -> Path:
    return make_run(folder / name, json.loads((folder / "values.json").read_text()), folder / "cache")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[int, Path]:
    made = {}
    for world in WORLDS:
        made[world] = new_run(folder, f"world{world}")
        Ranks(made[world], world, BOTH).wait()
    return made


def owner(ids: list[int]) -> str:
    """The data set of a step: the 40 rows of `three` come first."""
    (name,) = {"three" if each < 40 else "two" for each in ids}
    return name


@pytest.mark.parametrize("world", WORLDS[1:])
def test_samples_and_losses_do_not_depend_on_the_ranks(runs: dict[int, Path], world: int) -> None:
    for stage in STAGES:
        alone, many = (lines(runs[each] / stage / "samples.jsonl") for each in (1, world))
        assert alone == many
        one, other = (untimed(runs[each] / stage / "metrics.jsonl") for each in (1, world))
        assert len(one) == len(other) > 1
        for a, b in zip(one, other, strict=True):
            assert [a[key] for key in ("step", "lr", "samples", "tokens")] == [
                b[key] for key in ("step", "lr", "samples", "tokens")
            ]
            assert set(a["losses"]) == set(b["losses"])
            pairs = [(a[key], b[key]) for key in ("loss", "grad_norm")]
            pairs += [(a["losses"][term], b["losses"][term]) for term in a["losses"]]
            for x, y in pairs:
                assert (x is None and y is None) or math.isclose(x, y, rel_tol=1e-4), (stage, a, b)
    for name in LABELS:
        reports = [json.loads((runs[each] / "multitask" / "eval.json").read_text()) for each in (1, world)]
        first, second = (each["data_sets"][name] for each in reports)
        assert first["confusion"] == second["confusion"]
        assert math.isclose(first["loss"], second["loss"], rel_tol=1e-4)


def test_a_line_has_the_losses_of_the_data_sets_that_had_a_step(runs: dict[int, Path]) -> None:
    steps = [owner(step["ids"]) for step in lines(runs[2] / "multitask" / "samples.jsonl")]
    assert len(steps) == STEPS
    assert [steps.count(name) for name in LABELS] == [6, 18]  # 8 steps an epoch: 2 and 6, three times
    seen = set()
    for number, line in enumerate(lines(runs[2] / "multitask" / "metrics.jsonl")):
        window = steps[2 * number : 2 * number + 2]
        present = {name: loss for name, loss in line["losses"].items() if loss is not None}
        assert set(present) == set(window)
        assert math.isclose(line["loss"], sum(present[name] for name in window) / 2, rel_tol=1e-6)
        seen.add(tuple(sorted(set(window))))
    assert {("two",), ("three", "two")} <= seen


@pytest.mark.parametrize("world", WORLDS)
def test_a_head_without_a_batch_keeps_every_bit(runs: dict[int, Path], world: int) -> None:
    """Weights and moments in the checkpoints of consecutive steps: only the head of the step's data set has changed."""
    checkpoints = sorted((runs[world] / "multitask" / "checkpoints").iterdir())
    steps = [owner(step["ids"]) for step in lines(runs[world] / "multitask" / "samples.jsonl")]
    tensors = [
        {**load_file(str(path / "model.safetensors")), **load_file(str(path / "optimizer.safetensors"))}
        for path in checkpoints
    ]
    assert len(tensors) == STEPS
    for number in range(1, STEPS):
        before, after = tensors[number - 1], tensors[number]
        for name in LABELS:
            own = [key for key in after if f"classifiers.{name}." in key]
            changed = [key for key in own if key not in before or not np.array_equal(before[key], after[key])]
            assert set(changed) == (set(own) if steps[number] == name else set()), (number, name)


def test_every_data_set_is_tested_and_the_mean_told(runs: dict[int, Path]) -> None:
    stage = runs[2] / "multitask"
    result = json.loads((stage / "eval.json").read_text())
    assert list(result["data_sets"]) == list(LABELS)
    for name, report in result["data_sets"].items():
        rows = [line.split("\t") for line in (stage / f"predictions-{name}.tsv").read_text().splitlines()]
        truth = [line.split("\t")[1] for line in (stage.parents[1] / name / "test.tsv").read_text().splitlines()[1:]]
        assert rows[0] == ["index", "label", "prediction", *(f"p({label})" for label in LABELS[name])]
        assert [row[1] for row in rows[1:]] == truth
        right = sum(row[1] == row[2] for row in rows[1:])
        assert (report["accuracy"], report["n"]) == (right / 15, 15)
    for key in ("accuracy", "macro_f1", "loss", "majority_accuracy"):
        mean = sum(report[key] for report in result["data_sets"].values()) / 2
        assert math.isclose(result[key], mean, rel_tol=1e-12)
    records = lines(runs[2] / "attempts/000/node-0/rank-0.records.jsonl")
    evaluated = [r for r in records if r["type"] == "eval" and (r["stage"], r["split"]) == ("multitask", "validation")]
    assert [record["step"] for record in evaluated] == [5, 10, 15, 20, 24]
    best = min(evaluated, key=lambda record: record["metrics"]["loss"])
    done = json.loads((stage / "done.json").read_text())
    assert (done["best_step"], result["step"]) == (best["step"], best["step"])
    assert [best["metrics"]["data_sets"][name]["n"] for name in LABELS] == [5, 5]


def test_the_single_task_stage_goes_on_with_the_head_of_its_data_set(runs: dict[int, Path]) -> None:
    records = lines(runs[2] / "attempts/000/node-0/rank-0.records.jsonl")
    said = [record["text"] for record in records if record["type"] == "message"]
    assert said[-1] == f"single: weights from {runs[2] / 'multitask' / 'model'}; classifier of its data set two"
    many = load_file(str(runs[2] / "multitask" / "model" / "model.safetensors"))
    first = load_file(str(runs[2] / "single" / "checkpoints" / "step-00000001" / "model.safetensors"))
    start, after = many["classifiers.two.weight"].T, first["classifier.weight"]
    assert np.abs(start - after).max() <= 1.1e-4  # the first step of AdamW: at most lr, and decay
    assert np.abs(start).max() > 1e-3


def call(module: str, run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, "--run-dir", str(run), "--stage", "multitask", *arguments]
    return subprocess.run(command, cwd=ROOT, env=rank_environment(), capture_output=True, text=True, timeout=120)


def test_evaluating_again_gives_the_same(runs: dict[int, Path]) -> None:
    expected = json.loads((runs[1] / "multitask" / "eval.json").read_text())
    again = json.loads(call("trainers.evaluate", runs[1], "--json").stdout)
    assert list(again["data_sets"]) == list(LABELS)
    for one, other in ((again, expected), *((again["data_sets"][n], expected["data_sets"][n]) for n in LABELS)):
        assert (one["accuracy"], one["n"]) == (other["accuracy"], other["n"])
        assert math.isclose(one["loss"], other["loss"], rel_tol=1e-5)
        assert one["majority_accuracy"] == other["majority_accuracy"]
    lone = json.loads(call("trainers.evaluate", runs[1], "--json", "--data-set", "two", "--split", "validation").stdout)
    assert (lone["data_set"], lone["n"], lone["label_names"]) == ("two", 5, list(LABELS["two"]))


def test_predicting_takes_a_head(runs: dict[int, Path]) -> None:
    text = (runs[1].parent / "two" / "test.tsv").read_text().splitlines()[1].split("\t")[0]
    row = (runs[1] / "multitask" / "predictions-two.tsv").read_text().splitlines()[1].split("\t")
    done = call("trainers.predict", runs[1], "--head", "two", "--json", "--text", text)
    answer = json.loads(done.stdout)
    assert answer["label"] == row[2]
    assert [round(each, 4) for each in answer["probabilities"].values()] == [round(float(p), 4) for p in row[3:]]
    refused = call("trainers.predict", runs[1], "--text", text)
    assert refused.returncode == 2
    assert "has a classifier per data set (three, two); which one?" in refused.stderr


def test_killed_and_stopped_it_ends_bit_for_bit_the_same(folder: Path, runs: dict[int, Path]) -> None:
    chance = random.Random()
    run, story = new_run(folder, "disturbed"), []
    at = chance.randrange(3, 9)
    first = Ranks(run, 2, BOTH, "slow:0.1")
    first.wait_for(first.stands_at("multitask", at)).kill()
    # a resume that is stopped a step or two later: most likely one head has not been stepped in between
    second = Ranks(run, 2, BOTH, "slow:0.3")
    started = second.wait_for(lambda each: each.heartbeat(0).get("phase") == "step").heartbeat(0)["step"]
    second.wait_for(second.stands_at("multitask", started + 1)).stop()
    second.wait(75)
    Ranks(run, 2, BOTH, "stop:validation:3").wait(75)
    last = Ranks(run, 2, BOTH).wait()
    story.append(f"killed at about step {at}, then stopped after step {started}")
    assert last.records("stage_start")[0]["start_step"] > 0, story
    expected = runs[2]
    for stage in STAGES:
        assert untimed(run / stage / "metrics.jsonl") == untimed(expected / stage / "metrics.jsonl"), story
        assert lines(run / stage / "samples.jsonl") == lines(expected / stage / "samples.jsonl")
        names = ["model/model.safetensors", "model/bert4doc.json", "eval.json"]
        names += [f"predictions-{name}.tsv" for name in LABELS] if stage == "multitask" else ["predictions.tsv"]
        for name in names:
            ours, theirs = (run / stage / name).read_bytes(), (expected / stage / name).read_bytes()
            assert ours == theirs, (stage, name, story)
