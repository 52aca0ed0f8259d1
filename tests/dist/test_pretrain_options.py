"""Further pre-training on several corpora, held out, packed, alone and static: the same at any number of ranks, and after any kill."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.support.tiny import write_bert, write_corpus
from tests.support.training import Ranks, lines, make_run, untimed

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.fault]

STAGES = ("mixed", "packed")
BOTH = ",".join(STAGES)
STEPS = 18
WORLDS = (1, 2, 4)


def config(folder: Path) -> dict[str, Any]:
    """Batches that no number of ranks divides; models, evaluations and checkpoints fall on different steps and on the same."""
    write_bert(folder / "bert")
    for name, number in (("one", 30), ("two", 12)):
        write_corpus(folder / name / "corpus.txt", number, seed=number)
    lone = "\n\n".join("filler1 filler2 filler3 ." for _ in range(8))
    (folder / "two" / "lone.txt").write_text(lone + "\n")
    corpora = [
        {"dataset": "text", "path": str(folder / "one"), "weight": 0.5},
        {"dataset": "text", "path": str(folder / "two"), "weight": 2.0},
    ]
    common = {"task": "pretrain", "batch": 7, "micro_batch": 2, "lr": 3e-3, "max_length": 24, "max_steps": STEPS}
    common |= {"corpora": corpora, "init": "model", "save_model_every": 6}
    return {
        "model": str(folder / "bert"),
        "data": {"dataset": "text", "path": str(folder / "one")},
        "stages": {
            "mixed": {**common, "single_sentences": "alone", "validation": 8, "evaluate_every": 4, "ema": 0.8},
            "packed": {**common, "nsp": False, "packing": True, "dupe_factor": 2, "validation": 0.2, "whole_word": True},
        },
        "train": {"log_every": 1, "log_samples": True, "checkpoint_every": 5},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("options")
    (path / "values.json").write_text(json.dumps(config(path)))
    return path


def new_run(folder: Path, name: str) -> Path:
    return make_run(folder / name, json.loads((folder / "values.json").read_text()), folder / "cache")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[int, Path]:
    """The finished run at every world size."""
    made = {}
    for world in WORLDS:
        made[world] = new_run(folder, f"world{world}")
        Ranks(made[world], world, BOTH).wait()
    return made


def evaluations(run: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Every evaluation by stage and step, over all attempts."""
    files = sorted(run.glob("attempts/*/node-0/rank-0.records.jsonl"))
    records = [record for file in files for record in lines(file) if record["type"] == "eval"]
    return {(each["stage"], each["step"]): each["metrics"] for each in records}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("world", WORLDS[1:])
def test_the_ranks_change_nothing(runs: dict[int, Path], stage: str, world: int) -> None:
    one, other = runs[1] / stage, runs[world] / stage
    assert lines(one / "samples.jsonl") == lines(other / "samples.jsonl")
    for a, b in zip(untimed(one / "metrics.jsonl"), untimed(other / "metrics.jsonl"), strict=True):
        assert (a["samples"], a["tokens"], a["lr"]) == (b["samples"], b["tokens"], b["lr"])
        for term in a["losses"]:
            assert math.isclose(a["losses"][term], b["losses"][term], rel_tol=1e-4), (a["step"], term)
    mine, theirs = evaluations(runs[1]), evaluations(runs[world])
    assert mine.keys() == theirs.keys()
    for key, metrics in mine.items():
        assert metrics.keys() == theirs[key].keys()
        assert metrics["n"] == theirs[key]["n"]
        for name in (each for each in metrics if each.endswith("loss")):
            assert math.isclose(metrics[name], theirs[key][name], rel_tol=1e-4), (key, name)


def test_held_out_documents_are_evaluated_and_reported(runs: dict[int, Path]) -> None:
    for run in runs.values():
        found = evaluations(run)
        assert [step for stage, step in found if stage == "mixed"] == [4, 8, 12, 16, STEPS]
        assert [step for stage, step in found if stage == "packed"][-1] == STEPS
        for stage in STAGES:
            result = json.loads((run / stage / "eval.json").read_text())
            assert result == {"split": "validation", "step": STEPS, **found[stage, STEPS]}
            assert math.isclose(result["perplexity"], math.exp(result["mlm_loss"]))
            assert ("nsp_accuracy" in result) == (stage == "mixed")
            assert json.loads((run / stage / "done.json").read_text())["best_step"] is None
        losses = [metrics["mlm_loss"] for (stage, _), metrics in found.items() if stage == "mixed"]
        assert losses[-1] < losses[0] - 0.1


def test_models_of_steps_are_whole_and_the_last_is_the_result(runs: dict[int, Path]) -> None:
    for stage in STAGES:
        models = runs[2] / stage / "models"
        assert sorted(path.name for path in models.iterdir()) == [f"step-{step:08d}" for step in (6, 12, 18)]
        for path in models.iterdir():
            assert {file.name for file in path.iterdir()} == {file.name for file in (runs[2] / stage / "model").iterdir()}
        last = (models / "step-00000018" / "model.safetensors").read_bytes()
        assert last == (runs[2] / stage / "model" / "model.safetensors").read_bytes()
        early, late = (load_file(str(models / name / "model.safetensors")) for name in ("step-00000006", "step-00000012"))
        assert sum(not np.array_equal(early[name], late[name]) for name in early) > len(early) / 2


def test_killed_and_stopped_it_ends_bit_for_bit_alike(folder: Path, runs: dict[int, Path]) -> None:
    """kill -9 of all ranks at random steps of either stage, and a stop, then on to the end."""
    chance, run, story = random.Random(), new_run(folder, "disturbed"), []

    def pending() -> str:
        return ",".join(stage for stage in STAGES if not (run / stage / "done.json").exists())

    try:
        for stage, stop in (("mixed", False), ("packed", True)):
            step = chance.randrange(6, STEPS - 3)
            ranks = Ranks(run, 2, pending(), "slow:0.05")
            ranks.wait_for(ranks.stands_at(stage, step))
            story.append(f"{stage}: {'stopped' if stop else 'killed'} at about step {step}")
            if stop:
                ranks.stop()
                ranks.wait(75)
            else:
                ranks.kill()
        Ranks(run, 2, pending()).wait()
        assert evaluations(run) == evaluations(runs[2])
        for stage in STAGES:
            assert untimed(run / stage / "metrics.jsonl") == untimed(runs[2] / stage / "metrics.jsonl")
            assert lines(run / stage / "samples.jsonl") == lines(runs[2] / stage / "samples.jsonl")
            files = [path.relative_to(runs[2]) for path in (runs[2] / stage).rglob("model*/**/*") if path.is_file()]
            assert len(files) == 4 * 5
            for file in (*files, Path(stage) / "eval.json"):
                assert (run / file).read_bytes() == (runs[2] / file).read_bytes(), file
        assert [path for path in run.rglob(".*") if "paddle" not in path.parts] == []
    except AssertionError:
        print("\n".join(story))
        raise
