"""Processes are known by pid and start time; what is marked is found and killed, nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.processes import ProcessId, boot_id, die_with_parent, dies_with_me, kill_until_gone, marked, oom_kills

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP, stdout=-1, env={**os.environ, "TEST_MARK": "abc/000/0"})
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_is_alive_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    assert identity is not None
    assert identity.alive()
    sleeper.kill()
    while identity.alive():
        time.sleep(0.01)
    assert Path(f"/proc/{sleeper.pid}").exists(), "a zombie is still listed, and counts as ended"
    sleeper.wait()
    assert ProcessId.of(sleeper.pid) is None


def test_a_reused_pid_is_not_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    assert identity is not None
    assert not ProcessId(identity.pid, identity.start - 1).send(signal.SIGKILL)
    assert sleeper.poll() is None
    assert identity.send(signal.SIGKILL)
    assert sleeper.wait() == -9
    assert not identity.send(signal.SIGKILL)


def test_a_name_with_spaces_and_brackets_does_not_confuse_the_start_time(tmp_path: Path) -> None:
    program = tmp_path / "a ) 1 2 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        identity = ProcessId.of(process.pid)
        assert identity is not None
        assert identity.alive()
        assert identity.start >= ProcessId.current().start
    finally:
        process.kill()
        process.wait()


def test_only_the_marked_are_found_and_killed(sleeper: subprocess.Popen[bytes]) -> None:
    other = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL, env={**os.environ, "TEST_MARK": "abcd/000/0"})
    try:
        assert [(i.pid, value) for i, value in marked("TEST_MARK", "abc/")] == [(sleeper.pid, "abc/000/0")]
        assert kill_until_gone(lambda: (identity for identity, _ in marked("TEST_MARK", "abc/"))) == []
        assert sleeper.wait() == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_child_dies_with_its_parent() -> None:
    code = (
        "import subprocess, sys; from cluster.processes import dies_with_me\n"
        f"child = subprocess.Popen({SLEEP!r}, stdout=-1, preexec_fn=dies_with_me(), start_new_session=True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = ProcessId.of(int(parent.stdout.readline()))
    assert child is not None
    assert child.alive()
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while child.alive():
        assert time.monotonic() < deadline


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        die_with_parent(parent=1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGKILL


def test_the_signal_mask_is_not_inherited() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        child = subprocess.Popen(["/bin/sleep", "60"], preexec_fn=dies_with_me())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    child.terminate()
    assert child.wait(5) == -15


def test_the_kernel_can_be_asked() -> None:
    assert len(boot_id()) == 36
    assert oom_kills() >= 0
