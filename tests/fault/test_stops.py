"""A stop that is asked for anywhere, at any time: all ranks leave at one step, with one checkpoint, exit code 75."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from configs.schema import TrainConfig
from launcher.files import read_json_object
from launcher.rundir import RunDirectory
from launcher.stop_requests import StopRequests
from tests.fault.launches import meet, meet_apart
from tests.launches import left_behind, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.slow]
ENDLESS = "'--steps', '100000', '--save-every', '100000'"


def beat(run: RunDirectory, rank: int) -> dict[str, Any]:
    """The last heartbeat; {} before the first."""
    try:
        value: dict[str, Any] = json.loads((run.attempt(0).node(0) / f"rank-{rank}.heartbeat").read_bytes())
    except (OSError, ValueError):
        return {}
    return value


def pid_of(run: RunDirectory, who: str, supervisor: subprocess.Popen[bytes]) -> int:
    """Pid of the supervisor, the agent or rank 1's worker."""
    if who == "supervisor":
        return supervisor.pid
    if who == "agent":
        return int((read_json_object(run.attempt(0).node(0) / "agent.json") or {})["pid"])
    return int(beat(run, 1)["pid"])


def steps_at_the_end(run: RunDirectory) -> set[int]:
    return {beat(run, rank)["step"] for rank in (0, 1)}


def saved(run: RunDirectory) -> list[int]:
    return sorted(int(path.name[5:]) for path in run.path.glob("finetune/checkpoints/step-*"))


@pytest.mark.parametrize(
    ("phase", "who"),
    [("import", "rank"), ("import", "agent"), ("rendezvous", "rank"), ("load", "supervisor"), ("save", "rank")],
)
def test_a_stop_in_any_phase_ends_at_one_step_with_one_checkpoint(run: RunDirectory, who: str, phase: str) -> None:
    supervisor = meet_apart(run, f"{ENDLESS}, '--save-every', '5', '--do', '1:pause={phase}'")
    wait_until(lambda: beat(run, 1).get("phase") == phase)
    signum = {"supervisor": signal.SIGHUP, "agent": signal.SIGTERM, "rank": signal.SIGUSR1}[who]
    os.kill(pid_of(run, who, supervisor), signum)
    assert supervisor.wait(20) == 75
    assert len(steps_at_the_end(run)) == 1
    assert saved(run)[-1] in steps_at_the_end(run)
    assert len(saved(run)) <= 2, "the one of the stop, and one of every fifth step"
    assert left_behind(run) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_every_stop_signal_to_one_rank_stops_all(run: RunDirectory, signum: int) -> None:
    supervisor = meet_apart(run, ENDLESS)
    wait_until(lambda: beat(run, 1).get("step", 0) >= 3)
    os.kill(pid_of(run, "rank", supervisor), signum)
    assert supervisor.wait(20) == 75
    assert saved(run) == list(steps_at_the_end(run))


def test_two_signals_to_two_ranks_are_one_stop(run: RunDirectory) -> None:
    supervisor = meet_apart(run, ENDLESS)
    wait_until(lambda: min(beat(run, rank).get("step", 0) for rank in (0, 1)) >= 3)
    for rank in (1, 0):
        os.kill(int(beat(run, rank)["pid"]), signal.SIGTERM)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 75
    assert saved(run) == list(steps_at_the_end(run))


def test_a_time_limit_stops_with_a_checkpoint_before_it_is_over(run: RunDirectory) -> None:
    outcome, seen = meet(run, "--steps", "600", "--save-every", "100000", time_limit_s=6.0)
    assert (outcome.state, outcome.exit_code) == ("stopped", 75)
    assert saved(run) == list(steps_at_the_end(run))
    assert [event["reason"] for event in seen.of_type("state") if event["state"] == "stopping"] == ["time limit"]
    first, last = seen.events[0], seen.events[-1]
    assert 4.5 < last["t"] - first["t"] < 6.5


@pytest.mark.parametrize(("limit", "reserve", "due"), [(100.0, 60.0, 90.0), (7200.0, 60.0, 7140.0)])
def test_a_time_limit_keeps_time_to_save(
    monkeypatch: pytest.MonkeyPatch, limit: float, reserve: float, due: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr("launcher.stop_requests.time.monotonic", lambda: now[0])
    stop = StopRequests(limit, reserve)
    now[0] += due - 1
    assert not stop.requested
    now[0] += 2
    assert (stop.requested, stop.kill, stop.reason, stop.exit_code) == (True, False, "time limit", 143)


@pytest.mark.parametrize(
    ("written", "seconds"), [(90, 90.0), ("45m", 2700.0), ("2h", 7200.0), ("1d12h", 129600.0), (None, None)]
)
def test_a_time_limit_is_written_in_seconds_or_units(written: Any, seconds: float | None) -> None:
    assert TrainConfig(time_limit=written).time_limit_s == seconds


@pytest.mark.parametrize("written", ["2", "0s", "two hours", "2h 3m", 0])
def test_other_time_limits_are_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="time_limit"):
        TrainConfig(time_limit=written)
