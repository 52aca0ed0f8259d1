"""Faults in real trainings: the right words, and the same bits as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.restart_policy import RestartPolicy
from launcher.rundir import RunDirectory
from tests.fault.test_stops import beat
from tests.fault.training import STEPS, assert_same_result, config, new_run, train
from tests.launches import ROOT, left_behind, wait_until

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.fault, pytest.mark.dist, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def values(folder: Path) -> dict[str, Any]:
    return config(folder)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, values: dict[str, Any]) -> RunDirectory:
    run = new_run(folder, values, "undisturbed")
    assert train(run)[0].state == "finished"
    return run


def test_a_killed_and_a_hanging_rank_cost_time_but_no_bit(
    folder: Path,
    values: dict[str, Any],
    undisturbed: RunDirectory,
    chance: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run goes through kill -9 and a hang of random ranks at random steps, without help from anybody."""
    monkeypatch.setenv("PATH", "/nowhere")
    killed, hung = chance.randrange(1, 10), chance.randrange(12, STEPS)
    faults = (f"kill:{chance.randrange(2)}@finetune:{killed}", f"hang:{chance.randrange(2)}@finetune:{hung}")
    run = new_run(folder, values, "disturbed")
    outcome, seen = train(run, *faults)
    assert (outcome.state, run.attempts()) == ("finished", [0, 1, 2]), faults
    assert [event["step"] for event in seen.of_type("restart")] == [killed // 4 * 4, hung // 4 * 4], faults
    reasons = [event["reason"] for event in seen.of_type("restart")]
    for reason, fault, words in zip(reasons, faults, ("killed (SIGKILL)", "hangs: no progress for"), strict=True):
        rank, step = fault[5], fault.rpartition(":")[2]
        assert reason.startswith(f"node 0 rank {rank}, stage finetune, step {step}: {words}"), faults
    assert_same_result(run, undisturbed)
    assert left_behind(run) == []


def test_a_raising_rank_is_shown_with_its_traceback_and_its_samples(folder: Path, values: dict[str, Any]) -> None:
    run = new_run(folder, values, "raising")
    outcome, _ = train(run, "raise:1@finetune:2")
    cause = outcome.root_cause
    assert cause is not None
    assert cause.line() == "node 0 rank 1, stage finetune, step 2: RuntimeError: rehearsed failure (--chaos raise)"
    assert "in begin_step" in cause.traceback
    assert cause.details[0].startswith("in work: samples ")
    shown = [part.partition(" (train.tsv:") for part in cause.details[0].removeprefix("in work: samples ").split(", ")]
    assert len(shown) >= 3
    for number, _, line in shown:
        assert int(line.rstrip(")")) == int(number) + 2, "one line of headings, and lines count from 1"
    assert outcome.note == "not restarted: the code would raise the same error again"


@pytest.mark.campaign
def test_gloos_own_timeout_does_not_hide_the_rank_that_hangs(
    folder: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gloo gives up after 30 s, long before the bound of a step: the survivor's error is not the cause."""
    monkeypatch.setenv("PATH", "/nowhere")
    run = new_run(folder, values, "silent")
    cause = train(run, "stop:0@finetune:2", restart=RestartPolicy("never"), bounds=_patient())[0].root_cause
    assert cause is not None
    assert (cause.kind, cause.rank, cause.step) == ("hang", 0, 2)
    assert "its peers gave up waiting); stopped (T state" in cause.what


def _patient() -> Any:
    from launcher.spec import Bounds

    return Bounds(startup_timeout_s=180, phases={"step": 300.0})


def test_a_signal_while_paddle_is_imported_stops_all_ranks_with_a_checkpoint(
    folder: Path, values: dict[str, Any]
) -> None:
    run = new_run(folder, values, "early")
    code = (
        "import sys; from pathlib import Path; from launcher.rundir import RunDirectory; from tests.fault.training import *\n"
        "sys.exit(train(RunDirectory(Path(sys.argv[1])))[0].exit_code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, env=env)
    wait_until(lambda: (run.attempt(0).node(0) / "rank-1.stacks").exists())
    time.sleep(0.3)
    assert beat(run, 1)["phase"] == "import"
    os.kill(int(beat(run, 1)["pid"]), signal.SIGTERM)
    assert supervisor.wait(60) == 75
    assert [path.name for path in run.path.glob("finetune/checkpoints/step-*")] == ["step-00000000"]
    assert left_behind(run) == []


@pytest.mark.campaign
def test_campaign(
    folder: Path,
    values: dict[str, Any],
    undisturbed: RunDirectory,
    chance: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twenty runs, each with two faults of random kinds, ranks and steps; a run that was asked to stop is started again."""
    monkeypatch.setenv("PATH", "/nowhere")
    kinds = ["kill", "hang", "spin", "stop", "exit0", "slow", "segv", "term"]
    for number in range(int(os.environ.get("FAULT_RUNS") or 20)):
        steps = sorted(chance.sample(range(STEPS), 2))
        faults = [f"{chance.choice(kinds)}:{chance.randrange(2)}@finetune:{step}" for step in steps]
        run = new_run(folder, values, f"campaign-{number}")
        states = [train(run, *faults)[0].state]
        while states[-1] == "stopped":
            states.append(train(run, *faults)[0].state)
        print(f"run {number}: {', '.join(faults)}: {len(run.attempts())} attempts, {', '.join(states)}", flush=True)
        assert states[-1] == "finished", faults
        assert_same_result(run, undisturbed)
        assert left_behind(run) == []
