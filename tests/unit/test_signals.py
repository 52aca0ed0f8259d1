"""Signals to a supervisor in a process of its own, and kill -9 of every link of the chain: nothing outlives the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.processes import ProcessId
from launcher.files import read_json_object
from launcher.rundir import RunDirectory
from tests.launches import FAKES, ROOT, left_behind, wait_until

pytestmark = pytest.mark.slow
ENDLESS = ("--steps", "100000")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "trial")


class Supervised:
    """The supervisor's process and what it has started."""

    def __init__(self, run: RunDirectory, *worker_args: str) -> None:
        self.run = run
        command = [sys.executable, str(FAKES / "supervise.py"), str(run.path), *worker_args]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.node = run.attempt(0).node(0)
        wait_until(lambda: all(self.phase(rank) == "step" for rank in (0, 1)))

    def phase(self, rank: int) -> str:
        try:
            return str(json.loads((self.node / f"rank-{rank}.heartbeat").read_bytes())["phase"])
        except (OSError, ValueError):
            return ""

    def pid(self, who: str) -> int:
        """Pid of the agent, of Paddle's launcher, or of rank 1's shim or worker."""
        start = read_json_object(self.node / "rank-1.start.json") or {}
        if who in ("shim_pid", "pid"):
            return int(start[who])
        agent = int((read_json_object(self.node / "agent.json") or {})["pid"])
        if who == "agent":
            return agent
        stat = Path(f"/proc/{start['shim_pid']}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])


@pytest.fixture
def supervised(run: RunDirectory) -> Iterator[Supervised]:
    started = Supervised(run, *ENDLESS)
    yield started
    started.process.kill()
    started.process.wait()
    wait_until(lambda: not left_behind(run), 5)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_the_first_signal_saves_and_exits_with_75(supervised: Supervised, signum: int) -> None:
    supervised.process.send_signal(signum)
    assert supervised.process.wait(20) == 75
    status = supervised.run.read_status()
    assert status is not None
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert (supervised.run.attempt(0).stop_file).read_text() == signal.Signals(signum).name
    assert left_behind(supervised.run) == []


def test_a_second_interrupt_ends_the_run_at_once(run: RunDirectory) -> None:
    started = Supervised(run, *ENDLESS, "--step-s", "30")
    started.process.send_signal(signal.SIGINT)
    wait_until(lambda: (run.read_status() or {}).get("state") == "stopping")
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(0.5)
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(5) == 130
    assert left_behind(run) == []


@pytest.mark.parametrize(
    ("who", "signum"), [("pid", signal.SIGUSR1), ("shim_pid", signal.SIGTERM), ("agent", signal.SIGTERM)]
)
def test_a_signal_to_any_part_saves_and_exits_with_75(supervised: Supervised, who: str, signum: int) -> None:
    os.kill(supervised.pid(who), signum)
    if who != "agent":
        # A rank that was told to stop agrees with its peers by all-reduce; the fake worker's peer learns it from the stop file.
        wait_until(lambda: supervised.run.attempt(0).stop_file.exists())
    assert supervised.process.wait(20) == 75
    assert left_behind(supervised.run) == []


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("agent", "the agent of node 0 was killed (SIGKILL)"),
        ("launcher", "paddle.distributed.launch was killed (SIGKILL)"),
        ("shim_pid", "node 0 rank 1"),
        ("pid", "node 0 rank 1, stage finetune"),
    ],
)
def test_kill_9_of_any_part_is_named_and_leaves_nothing(supervised: Supervised, who: str, words: str) -> None:
    os.kill(supervised.pid(who), signal.SIGKILL)
    assert supervised.process.wait(20) in (1, 69)
    status = supervised.run.read_status()
    assert status is not None
    assert words in status["root_cause"]["line"]
    assert left_behind(supervised.run) == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGQUIT])
def test_nothing_outlives_the_supervisor(supervised: Supervised, signum: int) -> None:
    worker = ProcessId.of(supervised.pid("pid"))
    agent = ProcessId.of(supervised.pid("agent"))
    assert worker is not None
    assert agent is not None
    assert len(left_behind(supervised.run)) >= 5, "launcher, two shims, two workers"
    supervised.process.send_signal(signum)
    supervised.process.wait()
    wait_until(lambda: not left_behind(supervised.run) and not agent.alive() and not worker.alive(), 5)
    status = supervised.run.read_status()
    assert status is not None
    assert status["state"] == "interrupted"


def test_a_stop_while_the_data_is_prepared_ends_the_preparation(run: RunDirectory, tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    script.write_text("import time\nopen('%s', 'w').close()\ntime.sleep(300)" % (tmp_path / "preparing"))
    command = [sys.executable, str(FAKES / "supervise.py"), str(run.path), "--prepare", str(script)]
    supervisor = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_until((tmp_path / "preparing").exists)
    assert (run.read_status() or {})["state"] == "preparing"
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 143
    assert left_behind(run) == []


def test_nothing_outlives_a_supervisor_and_an_agent_that_die_together(supervised: Supervised) -> None:
    os.kill(supervised.pid("agent"), signal.SIGKILL)
    supervised.process.kill()
    wait_until(lambda: not left_behind(supervised.run), 5)


def test_the_run_continues_in_the_next_attempt_after_a_kill(supervised: Supervised) -> None:
    supervised.process.kill()
    supervised.process.wait()
    command = [sys.executable, str(FAKES / "supervise.py"), str(supervised.run.path)]
    again = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=30, check=False)
    assert again.returncode == 0
    assert supervised.run.attempts() == [0, 1]
    assert left_behind(supervised.run) == []
