"""Which rows are trained on: bad rows, dropped duplicates, folds and few-shot samples, the same on 1 and 2 ranks; pairs with an empty
side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny import CLASSES, FILLERS, TOPICS, write_bert
from tests.support.training import ROOT, Ranks, lines, make_run, rank_environment

FOLDS, NUM_TRAIN, NUM_TEST, NUM_CLASSES = 4, 80, 13, 10
IN_TEST, BAD = (5, 6, 40), (0, 3, 50)
"""Good rows whose text stands in the test file; positions in the file before which a bad row stands."""


def row(number: int, kind: str) -> str:
    """A question of the Yahoo data set whose words give its class away; every third has no answer, every seventh no title."""
    rng = np.random.default_rng(number + (1000 if kind == "test" else 0))
    label = number % NUM_CLASSES
    words = [*rng.choice(FILLERS, 4), *rng.choice(TOPICS[CLASSES[label % len(CLASSES)]], 3)]
    sides = [" ".join(words[:2]), " ".join(words[2:4]), " ".join(words[4:])]
    if number % 3 == 0:
        sides = [*sides[:1], " ".join(words[2:]), ""]
    elif number % 7 == 0:
        sides = ["", "", " ".join(words)]
    return ",".join(f'"{field}"' for field in (str(label + 1), *sides)) + "\n"


def config(folder: Path) -> dict[str, Any]:
    write_bert(folder / "bert")
    (folder / "raw").mkdir()
    test = [row(number, "test") for number in range(NUM_TEST)]
    train = [row(number, "train") for number in range(NUM_TRAIN)]
    for place, number in zip(IN_TEST, (1, 2, 4), strict=True):
        train[place] = test[number].upper()
    for place in reversed(BAD):
        train.insert(place, '"99","no such class","",""\n')
    (folder / "raw" / "train.csv").write_text("".join(train))
    (folder / "raw" / "test.csv").write_text("".join(test))
    data = {"dataset": "yahoo", "path": str(folder / "raw"), "on_bad_row": "skip", "max_bad_rows": 0.1, "overlap": "drop"}
    few = {**data, "subset": {"per_class": 4, "test": 0.5}, "validation": 6}
    common = {"task": "finetune", "batch": 7, "lr": 1e-2, "max_length": 24, "init": "model", "epochs": 2}
    return {
        "model": str(folder / "bert"),
        "data": {**data, "folds": FOLDS, "fold": 1},
        "stages": {"fold": common, "few": {**common, "data": few}},
        "train": {"log_every": 1, "log_samples": True, "checkpoint_every": 50},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The finished run on 1 and 2 ranks."""
    folder = tmp_path_factory.mktemp("rows")
    values = config(folder)
    made = {}
    for world in (1, 2):
        made[world] = make_run(folder / f"world{world}", values, folder / "cache")
        Ranks(made[world], world, "fold,few").wait()
    return made


def trained_on(run: Path, stage: str) -> list[list[int]]:
    return [step["ids"] for step in lines(run / stage / "samples.jsonl")]


@pytest.mark.parametrize("stage", ["fold", "few"])
def test_the_same_rows_on_any_number_of_ranks(runs: dict[int, Path], stage: str) -> None:
    assert trained_on(runs[1], stage) == trained_on(runs[2], stage)
    facts = [json.loads((runs[world] / "prepared.json").read_text())["stages"][stage] for world in (1, 2)]
    assert facts[0] == facts[1]
    assert (facts[0]["num_skipped"], facts[0]["num_dropped"]) == (len(BAD), len(IN_TEST))


def test_dropped_and_held_out_rows_are_never_trained_on(runs: dict[int, Path]) -> None:
    used = {number for ids in trained_on(runs[2], "fold") for number in ids}
    facts = json.loads((runs[2] / "prepared.json").read_text())["stages"]["fold"]
    assert not used & set(IN_TEST)
    assert max(used) == NUM_TRAIN - 1  # rows are numbered as in the file, bad ones not counted, dropped ones counted
    assert len(used) == facts["num_examples"] == NUM_TRAIN - len(IN_TEST) - facts["num_validation"]
    assert facts["num_validation"] in (19, 20)  # a quarter of 77


def test_few_shot_trains_on_four_of_each_class(runs: dict[int, Path]) -> None:
    used = {number for ids in trained_on(runs[2], "few") for number in ids}
    good = [number for number in range(NUM_TRAIN) if number not in IN_TEST]
    assert used <= set(good)
    assert np.bincount([number % NUM_CLASSES for number in used]).tolist() == [4] * NUM_CLASSES


def test_scores_are_of_the_whole_test_split(runs: dict[int, Path]) -> None:
    for world in (1, 2):
        rows = [line.split("\t") for line in (runs[world] / "fold" / "predictions.tsv").read_text().splitlines()[1:]]
        names = json.loads((runs[world] / "prepared.json").read_text())["stages"]["fold"]["label_names"]
        assert [fields[1] for fields in rows] == [names[number % NUM_CLASSES] for number in range(NUM_TEST)]
    assert json.loads((runs[1] / "few" / "eval.json").read_text())["n"] == 7  # half of 13


@pytest.mark.parametrize(("stage", "split", "expected"), [("fold", "validation", None), ("few", "train", 40), ("few", "test", 7)])  # fmt: skip
def test_evaluating_again_chooses_the_same_rows(runs: dict[int, Path], stage: str, split: str, expected: int) -> None:
    command = [sys.executable, "-m", "trainers.evaluate", "--run-dir", str(runs[1]), "--stage", stage, "--split", split]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=rank_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    facts = json.loads((runs[1] / "prepared.json").read_text())["stages"][stage]
    assert result["n"] == (facts["num_validation"] if expected is None else expected)
    if split == "validation":
        best = json.loads((runs[1] / stage / "done.json").read_text())["metrics"]
        assert abs(result["accuracy"] - best["validation_accuracy"]) < 1e-9
