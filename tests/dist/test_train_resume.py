"""Kill or stop a training anywhere: it ends bit for bit as if nothing had happened. Real launches of a tiny model."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import write_bert, write_corpus, write_tsv
from tests.support.training import Ranks, lines, make_run, untimed

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow, pytest.mark.fault]

STAGES = ("pretrain", "finetune")
BOTH = ",".join(STAGES)
PRETRAIN_STEPS, FINETUNE_STEPS = 24, 40


def config(folder: Path) -> dict[str, Any]:
    """EMA, accumulation, dropout, evaluation and early stopping, fractions, frozen parts, no bias correction; windows that no checkpoint falls together with."""
    write_bert(folder / "bert")
    write_tsv(folder / "table" / "train.tsv", 60, seed=1)
    write_tsv(folder / "table" / "test.tsv", 30, seed=2)
    write_corpus(folder / "corpus" / "corpus.txt", 40, seed=3)
    common = {"batch": 7, "micro_batch": 2, "lr": 5e-3, "max_length": 24, "ema": 0.8}
    stopping = {"early_stopping": {"patience": 6}, "evaluate_every": 4, "best_metric": "loss"}
    options = {"hierarchical": "attention", "max_length": 9, "freeze": "embeddings", "bias_correction": False, "lr": 1e-3}
    return {
        "model": str(folder / "bert"),
        "data": {"dataset": "tsv", "path": str(folder / "table"), "validation": 10},
        "stages": {
            "pretrain": {
                **common,
                "data": {"dataset": "text", "path": str(folder / "corpus")},
                "max_steps": PRETRAIN_STEPS,
                "splits": ["train"],
            },
            "finetune": {**common, **stopping, **options, "max_steps": FINETUNE_STEPS},
        },
        "train": {"log_every": 3, "log_samples": True, "checkpoint_every": 5},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume")
    (path / "values.json").write_text(json.dumps(config(path)))
    return path


def new_run(folder: Path, name: str) -> Path:
    return make_run(folder / name, json.loads((folder / "values.json").read_text()), folder / "cache")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    run = new_run(folder, "undisturbed")
    Ranks(run, 2, BOTH).wait()
    return run


def unfinished(run: Path) -> str:
    return ",".join(stage for stage in STAGES if not (run / stage / "done.json").exists())


def validations(run: Path) -> dict[int, tuple[dict[str, float], bool]]:
    """Every evaluation on the validation split by step, over all attempts."""
    files = sorted(run.glob("attempts/*/node-0/rank-0.records.jsonl"))
    records = [record for file in files for record in lines(file) if record["type"] == "eval"]
    return {each["step"]: (each["metrics"], each["best"]) for each in records if each["split"] == "validation"}


def assert_same_result(run: Path, expected: Path) -> None:
    """Everything that does not tell the time is equal to the last bit."""
    assert validations(run) == validations(expected)
    assert len(validations(run)) >= 6
    for stage in STAGES:
        assert untimed(run / stage / "metrics.jsonl") == untimed(expected / stage / "metrics.jsonl")
        assert lines(run / stage / "samples.jsonl") == lines(expected / stage / "samples.jsonl")
        for name in ("model/model.safetensors", "model/config.json", "eval.json", "predictions.tsv"):
            if stage == "finetune" or name.startswith("model/"):
                assert (run / stage / name).read_bytes() == (expected / stage / name).read_bytes(), (stage, name)
        ours, theirs = (json.loads((each / stage / "done.json").read_text()) for each in (run, expected))
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        leftovers = [path for path in run.rglob(".*") if "paddle" not in path.parts]
        assert leftovers == []


def test_the_undisturbed_run_is_worth_comparing_with(undisturbed: Path) -> None:
    logged = lines(undisturbed / "finetune" / "metrics.jsonl")
    assert [line["step"] for line in logged] == [*range(3, FINETUNE_STEPS, 3), FINETUNE_STEPS]
    assert logged[-1]["loss"] < 0.9 * logged[0]["loss"]
    done = json.loads((undisturbed / "finetune" / "done.json").read_text())
    assert 0 < done["best_step"] <= FINETUNE_STEPS


def test_killed_and_stopped_again_and_again(folder: Path, undisturbed: Path) -> None:
    """One run goes through: kill -9 of all ranks in either stage, a stop between steps, a stop in an evaluation on the validation
    and on the test split. The steps of the kills are random; a failure prints them."""
    chance = random.Random()
    run = new_run(folder, "disturbed")
    story = []

    def killed(stage: str, last: int) -> None:
        step = 5 * chance.randrange(1, last // 5) + chance.randrange(
            1, 4
        )  # past a checkpoint, with lines that must be cut
        ranks = Ranks(run, 2, unfinished(run), "slow:0.05")
        ranks.wait_for(ranks.stands_at(stage, step)).kill()
        story.append(f"{stage}: aimed at step {step}, killed at {ranks.heartbeat(0)['step']}")

    def stopped(*seams: str) -> Ranks:
        ranks = Ranks(run, 2, unfinished(run), "slow:0.05", *seams)
        if not seams:
            started = ranks.wait_for(lambda each: each.heartbeat(0).get("phase") == "step").heartbeat(0)["step"]
            ranks.wait_for(ranks.stands_at("pretrain", started + 1)).stop()
        ranks.wait(75)
        assert [record["reason"] for record in ranks.records("stage_end")][-1] == "stopped"
        return ranks

    try:
        killed("pretrain", PRETRAIN_STEPS - 6)
        checkpoints = run / "pretrain" / "checkpoints"
        before = {path.name for path in checkpoints.iterdir()} if checkpoints.exists() else set()
        saved = [record["step"] for record in stopped().records("checkpoint")]
        assert len(saved) <= 2, "the stop itself writes one checkpoint; at most one other was due just before"
        assert f"step-{saved[-1]:08d}" in {path.name for path in checkpoints.iterdir()} - before
        killed("finetune", FINETUNE_STEPS - 5)
        stopped("stop:validation:2")
        stopped("stop:test:1")
        assert (run / "finetune" / "checkpoints" / f"step-{FINETUNE_STEPS:08d}").exists() or (
            json.loads((undisturbed / "finetune" / "done.json").read_text())["reason"] == "early_stopping"
        )
        assert not (run / "finetune" / "eval.json").exists()
        last = Ranks(run, 2, unfinished(run)).wait()
        assert last.records("stage_start")[0]["resumed_from"].startswith(str(run / "finetune" / "checkpoints"))
        assert_same_result(run, undisturbed)
    except AssertionError:
        print("\n".join(story))
        raise


def test_resumed_at_another_number_of_ranks(folder: Path, undisturbed: Path) -> None:
    """2 ranks, then 3, then 1: the same samples, and losses within float tolerance; both resumes start in the middle of a window."""
    run = new_run(folder, "resized")
    for world, stage, step in ((2, "pretrain", 7), (3, "finetune", 16)):
        ranks = Ranks(run, world, unfinished(run), "slow:0.05")
        ranks.wait_for(ranks.stands_at(stage, step)).stop()
        ranks.wait(75)
    Ranks(run, 1, unfinished(run)).wait()
    for stage in STAGES:
        assert lines(run / stage / "samples.jsonl") == lines(undisturbed / stage / "samples.jsonl")
        ours, theirs = untimed(run / stage / "metrics.jsonl"), untimed(undisturbed / stage / "metrics.jsonl")
        assert [line["step"] for line in ours] == [line["step"] for line in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert (a["samples"], a["tokens"], a["lr"]) == (b["samples"], b["tokens"], b["lr"])
            assert math.isclose(a["loss"], b["loss"], rel_tol=1e-4), (stage, a["step"], a["loss"], b["loss"])


def test_a_damaged_checkpoint_is_passed_over_and_another_config_refused(folder: Path, undisturbed: Path) -> None:
    """The newest checkpoint is damaged: named, the one before it used, the result unchanged. Then a changed config is refused."""
    run = new_run(folder, "damaged")
    ranks = Ranks(run, 2, BOTH, "slow:0.05")
    ranks.wait_for(lambda each: len(each.records("checkpoint")) >= 3).kill()
    newest = max((run / "pretrain" / "checkpoints").glob("step-*"))
    path = newest / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    original = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(original.replace("lr: 0.005", "lr: 0.006"))
    refused = Ranks(run, 2, BOTH).wait(2)
    error = refused.error(0)
    assert error is not None
    assert (error["type"], error["exit_code"], error["user_error"]) == ("ConfigError", 2, True)
    assert "belongs to other settings" in error["message"]
    (run / "config.yaml").write_text(original)
    again = Ranks(run, 2, BOTH).wait()
    warnings = [record["text"] for record in again.records("message") if record["level"] == "warning"]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert "sha256 differs" in warnings[0]
    assert again.records("stage_start")[0]["start_step"] == int(newest.name[5:]) - 5
    assert_same_result(run, undisturbed)


def test_a_rank_that_fails_says_why(folder: Path) -> None:
    """Rank 1 raises: its own traceback, marked as the cause; the peer's failure is marked as a symptom. A lost loss is survived."""
    run = new_run(folder, "failing")
    ranks = Ranks(run, 2, BOTH, chaos=("nan:0@pretrain:2", "raise:1@pretrain:4"))
    ranks.process.wait(120)
    assert ranks.process.returncode != 0
    error = ranks.error(1)
    assert error is not None
    assert (error["type"], error["message"], error["collective"], error["user_error"]) == (
        "RuntimeError",
        "rehearsed failure (--chaos raise)",
        False,
        False,
    )
    assert (error["rank"], error["stage"], error["step"], error["exit_code"]) == (1, "pretrain", 4, 1)
    assert 'raise RuntimeError("rehearsed failure (--chaos raise)")' in error["traceback"]
    batch = lines(run / "pretrain" / "samples.jsonl")[3]["ids"]
    assert len(error["samples"]["ids"]) in (len(batch) // 2, -(-len(batch) // 2))
    peer = ranks.error(0)
    assert peer is None or peer["collective"]
    warnings = [record["text"] for record in ranks.records("message") if record["level"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("step 3: the gradients are not finite; the update was skipped: the loss of rank 0 is not")
    named = {int(number) for number in re.findall(r"\d+", warnings[0].partition("samples ")[2])}
    assert named <= set(lines(run / "pretrain" / "samples.jsonl")[2]["ids"])
    assert len(named) >= 3
    assert [line["skipped_steps"] for line in lines(run / "pretrain" / "metrics.jsonl")] == [1]
