"""The shim with real workers: output, end records, signals, death, hold."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import ProcessId
from launcher.files import read_json_object
from tests.launches import ROOT, wait_until


class Shim:
    """A shim that runs a one-line worker as rank 3 of node 1."""

    def __init__(self, tmp_path: Path, code: str) -> None:
        self.directory = tmp_path / "node-1"
        self.directory.mkdir(exist_ok=True)
        worker = tmp_path / "worker.py"
        worker.write_text(code)
        command = [
            sys.executable,
            "-u",
            str(ROOT / "launcher/shim.py"),
            str(worker),
            "--attempt-dir",
            str(tmp_path),
            "--node",
            "1",
        ]
        self.process = subprocess.Popen(command, env={**os.environ, "PADDLE_TRAINER_ID": "3"}, start_new_session=True)

    def file(self, name: str) -> dict[str, object] | None:
        return read_json_object(self.directory / f"rank-3.{name}.json")

    def log(self) -> str:
        path = self.directory / "rank-3.log"
        return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("code", "returncode", "signum", "status"),
    [
        ("print('x')", 0, None, 0),
        ("raise SystemExit(65)", 65, None, 65),
        ("import os; os.kill(os.getpid(), 9)", None, 9, 137),
        ("import os; os.kill(os.getpid(), 11)", None, 11, 139),
        ("1/0", 1, None, 1),
    ],
)
def test_the_end_is_recorded(
    tmp_path: Path, code: str, returncode: int | None, signum: int | None, status: int
) -> None:
    shim = Shim(tmp_path, code)
    assert shim.process.wait(20) == status
    end, start = shim.file("exit"), shim.file("start")
    assert end is not None
    assert start is not None
    assert (end["rank"], end["node"], end["returncode"], end["signal"]) == (3, 1, returncode, signum)
    assert start["shim_pid"] == shim.process.pid
    assert start["pid"] == end["pid"]


def test_all_output_goes_to_the_log_and_the_log_is_private(tmp_path: Path) -> None:
    code = "import os, sys; print('out'); print('err', file=sys.stderr, flush=True); sys.stdout.flush(); os.write(1, b'raw \\xff\\n')"
    assert Shim(tmp_path, code).process.wait(20) == 0
    content = (tmp_path / "node-1" / "rank-3.log").read_bytes()
    assert all(part in content for part in (b"out\n", b"err\n", b"raw \xff\n"))
    for path in (tmp_path / "node-1").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_reach_the_worker(tmp_path: Path, signum: int) -> None:
    code = f"import signal, sys, time\nsignal.signal({int(signum)}, lambda *_: sys.exit(75))\nprint('up', flush=True)\ntime.sleep(60)"
    shim = Shim(tmp_path, code)
    wait_until(lambda: "up" in shim.log())
    shim.process.send_signal(signum)
    assert shim.process.wait(20) == 75


def test_the_worker_dies_with_the_shim(tmp_path: Path) -> None:
    shim = Shim(
        tmp_path, "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"
    )
    wait_until(lambda: "up" in shim.log())
    worker = ProcessId.of(int((shim.file("start") or {})["pid"]))  # type: ignore[call-overload]
    assert worker is not None
    shim.process.kill()
    shim.process.wait()
    wait_until(lambda: not worker.alive(), 5)
    assert shim.file("exit") is None


def test_paddles_killpg_does_not_reach_the_worker(tmp_path: Path) -> None:
    shim = Shim(tmp_path, "import os; print(os.getsid(0), flush=True); import time; time.sleep(60)")
    wait_until(shim.log)
    assert int(shim.log()) != shim.process.pid
    shim.process.kill()
    shim.process.wait()


def test_the_end_is_held_back_until_the_agent_releases_it(tmp_path: Path) -> None:
    me = ProcessId.current()
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "agent.json").write_text(f'{{"pid": {me.pid}, "start": {me.start}}}')
    shim = Shim(tmp_path, "raise SystemExit(3)")
    wait_until(lambda: shim.file("exit"))
    with pytest.raises(subprocess.TimeoutExpired):
        shim.process.wait(0.5)
    (tmp_path / "node-1" / "release").touch()
    assert shim.process.wait(5) == 3


def test_nothing_starts_when_the_agent_is_gone_already(tmp_path: Path) -> None:
    me = ProcessId.current()
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1" / "agent.json").write_text(f'{{"pid": {me.pid}, "start": {me.start - 1}}}')
    assert Shim(tmp_path, "print('ran')").process.wait(20) == 137
    assert not (tmp_path / "node-1" / "rank-3.log").exists()


def test_a_planted_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "node-1").mkdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "node-1" / "rank-3.log").symlink_to(target)
    assert Shim(tmp_path, "print('x')").process.wait(20) == 127
    assert target.read_text() == "precious"
