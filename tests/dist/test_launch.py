"""The real `paddle.distributed.launch` with real gloo ranks: results, failures, signals, ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import ports
from cluster.processes import ProcessId, marked
from launcher.environment_vars import rank_environment
from launcher.files import read_json_object
from launcher.protocol import Outcome
from launcher.rundir import RunDirectory
from launcher.spec import ATTEMPT_VARIABLE, Bounds, LaunchSpec, NodeShape
from launcher.supervisor import supervise
from tests.launches import FAKES, ROOT, Recorder, left_behind, wait_until

pytest.importorskip("paddle", reason="needs Paddle")
CANARY = b"canary-0815"
BOUNDS = Bounds(startup_timeout_s=90, stop_grace_s=20)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "trial")


def spec(run: RunDirectory, nproc: int, *worker_args: str, **changes: object) -> LaunchSpec:
    env = rank_environment(os.environ, {}, str(ROOT), 1)
    worker, args = str(FAKES / "gloo_worker.py"), ("--stages", "finetune", *worker_args)
    parts = {"root": str(ROOT), "python": sys.executable, "run_dir": str(run.path), "nodes": (NodeShape(nproc=nproc),)}
    return LaunchSpec(**{**parts, "worker": worker, "worker_args": args, "env": env, "bounds": BOUNDS, **changes})  # type: ignore[arg-type]


def supervised(run: RunDirectory, launch: LaunchSpec) -> tuple[Outcome, Recorder]:
    seen = Recorder()
    with run.lock():
        return supervise(launch, run, seen), seen


@pytest.mark.parametrize("nproc", [1, 2, 4])
def test_ranks_meet_and_reduce(run: RunDirectory, nproc: int) -> None:
    outcome, _ = supervised(run, spec(run, nproc))
    assert (outcome.state, outcome.exit_code) == ("finished", 0), outcome.root_cause
    expected = 5 * nproc * (nproc + 1) / 2
    assert [float((run.path / f"total-{rank}").read_text()) for rank in range(nproc)] == [expected] * nproc
    assert left_behind(run) == []


def test_the_rank_that_raised_is_named_while_its_peer_reduces(run: RunDirectory) -> None:
    outcome, _ = supervised(run, spec(run, 2, "--steps", "100000", "--do", "1:raise"))
    assert outcome.root_cause is not None
    assert outcome.exit_code == 1
    assert outcome.root_cause.line() == "node 0 rank 1, stage finetune, step 3: ValueError: bad data row 17"
    assert 'raise ValueError("bad data row 17")' in outcome.root_cause.traceback
    assert left_behind(run) == []


def test_a_taken_port_of_the_users_choice_names_its_holder(run: RunDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome, _ = supervised(run, spec(run, 2, start_port=port, port_fixed=True))
    assert outcome.exit_code == 69
    assert outcome.root_cause is not None
    assert outcome.root_cause.what.startswith(f"port {port} is in use by process {os.getpid()} (")


def test_another_port_is_taken_when_the_planned_one_is_in_use(run: RunDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome, seen = supervised(run, spec(run, 2, start_port=port))
    assert outcome.state == "finished"
    assert f"port {port} is in use" in seen.of_type("message")[0]["text"]


class Started:
    """A real launch under a supervisor in a process of its own, at work."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        code = (
            "import sys; from pathlib import Path; from launcher.rundir import RunDirectory; from tests.dist.test_launch import *\n"
            "run = RunDirectory(Path(sys.argv[1]))\n"
            "sys.exit(supervised(run, spec(run, 2, '--steps', '100000'))[0].exit_code)"
        )
        command = [sys.executable, "-c", code, str(run.path)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SOME_API_TOKEN": CANARY.decode(), "HF_TOKEN": CANARY.decode()}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env)
        self.node = run.attempt(0).node(0)
        wait_until(lambda: self.has_stepped(0) and self.has_stepped(1), 60)

    def has_stepped(self, rank: int) -> bool:
        path = self.node / f"rank-{rank}.records.jsonl"
        return path.exists() and '"step", "stage": "finetune", "step": 3' in path.read_text()

    def processes(self) -> dict[int, ProcessId]:
        return {identity.pid: identity for identity, _ in marked(ATTEMPT_VARIABLE, f"{self.run.run_id()}/")}

    def pid(self, who: str) -> int:
        if who == "agent":
            return int((read_json_object(self.node / "agent.json") or {})["pid"])
        start = read_json_object(self.node / "rank-1.start.json") or {}
        if who == "launcher":
            stat = Path(f"/proc/{start['shim_pid']}/stat").read_text()
            return int(stat.rpartition(")")[2].split()[1])
        return int(start["pid"])


@pytest.fixture
def started(run: RunDirectory) -> Started:
    return Started(run)


@pytest.mark.parametrize("who", ["supervisor", "agent", "launcher", "rank"])
def test_kill_9_leaves_no_process(started: Started, who: str) -> None:
    before = started.processes()
    assert len(before) == 5, "launcher, two shims, two workers"
    os.kill(started.process.pid if who == "supervisor" else started.pid(who), signal.SIGKILL)
    wait_until(lambda: not any(identity.alive() for identity in before.values()), 5)
    code = started.process.wait(20)
    assert left_behind(started.run) == []
    if who != "supervisor":
        cause = (started.run.read_status() or {})["root_cause"]
        words = {"agent": "the agent of node 0", "launcher": "paddle.distributed.launch", "rank": "rank 1"}[who]
        assert words in cause["line"]
        assert "SIGKILL" in cause["line"]
        assert code in (1, 69)


def test_sigterm_to_paddles_launcher_is_a_stop(started: Started) -> None:
    os.kill(started.pid("launcher"), signal.SIGTERM)
    assert started.process.wait(40) == 75
    assert left_behind(started.run) == []


def test_a_run_shows_no_secret_opens_no_port_of_its_own_and_stops_when_asked(started: Started) -> None:
    """Paddle's own store binds every address and cannot be told otherwise; nothing else of a run may."""
    store = next(int(event["start_port"]) for event in started.run.read_events() if event["type"] == "attempt_start")
    pids = [*started.processes(), started.process.pid, started.pid("agent")]
    listening = {port for pid in pids for port in _listening_ports(pid)}
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    shown += [Path(f"/proc/{pid}/environ").read_bytes() for pid in started.processes()]
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(30) == 75
    assert left_behind(started.run) == []
    assert listening == {store}
    assert len(pids) == 7
    assert not any(CANARY in text for text in shown)
    for path in started.run.path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.is_dir() or CANARY not in path.read_bytes(), path


def _listening_ports(pid: int) -> set[int]:
    """Ports that a process listens on at an address other than 127.0.0.1."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists() or path.is_symlink()}
    open_rows = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return {int(row[1].split(":")[1], 16) for row in open_rows if not row[1].startswith("0100007F")}


def test_ports_are_found_and_their_holder_named() -> None:
    start = ports.find_free_block(3)
    with socket.create_server(("127.0.0.1", start)):
        assert not ports.is_free(start)
        holder = ports.holder(start)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert ports.holder(start) is None
