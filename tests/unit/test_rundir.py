"""The run directory: privacy, names, the lock, attempts, status."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import ProcessId, boot_id
from configs.errors import CannotWriteError, ConfigError, UserError
from launcher.rundir import RunDirectory, list_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "trial")


def test_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run = RunDirectory.create(tmp_path / "a" / "runs", "trial")
        run.attempt(0).make(2)
    finally:
        os.umask(before)
    for path in (run.path.parent, run.path, *run.path.rglob("*")):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-a", ".hidden", "a b", "a\nb", "x" * 65])
def test_a_name_that_is_no_directory_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="run name"):
        RunDirectory.create(tmp_path, name)


def test_a_planted_symbolic_link_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "trial").symlink_to(elsewhere)
    with pytest.raises(CannotWriteError, match="symbolic link"):
        RunDirectory.create(tmp_path, "trial")
    with pytest.raises(ConfigError, match="not found"):
        RunDirectory.open(tmp_path, "trial")
    assert list(elsewhere.iterdir()) == []


def test_a_planted_link_in_place_of_the_lock_or_the_events_is_not_followed(run: RunDirectory, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    run.lock_file.symlink_to(target)
    run.events.symlink_to(target)
    with pytest.raises(CannotWriteError, match="lock"), run.lock():
        pass
    run.append_event({"type": "x"})
    assert target.read_text() == "precious"
    assert run.take_warnings() != []


def test_an_unknown_run_names_those_that_there_are(run: RunDirectory) -> None:
    run.write_status({"state": "finished"})
    with pytest.raises(ConfigError, match="there are: trial"):
        RunDirectory.open(run.path.parent, "trail")


def test_the_id_stays_and_differs_between_runs(run: RunDirectory) -> None:
    other = RunDirectory.create(run.path.parent, "other")
    assert run.run_id() == run.run_id() != other.run_id()
    assert len(run.run_id()) == 16


def test_a_second_launch_is_refused_and_told_who_holds_the_run(run: RunDirectory) -> None:
    with run.lock() as note:
        assert note == ""
        with (
            pytest.raises(UserError, match=f"held by another launch: process {os.getpid()} on .*, started 20"),
            run.lock(),
        ):
            pass
    with run.lock() as note:
        assert note == ""


def test_the_lock_of_a_killed_holder_is_taken_over_and_explained(run: RunDirectory) -> None:
    code = (
        "import os, sys; from pathlib import Path; from launcher.rundir import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock(): os.kill(os.getpid(), 9)"
    )
    holder = subprocess.run([sys.executable, "-c", code, str(run.path)], cwd=ROOT, timeout=20, check=False)
    assert holder.returncode == -9
    with run.lock() as note:
        assert "ended without a word" in note
        assert "process" in note


def test_only_one_of_many_launches_at_once_gets_the_run(run: RunDirectory) -> None:
    code = (
        "import sys, time; from pathlib import Path; from launcher.rundir import RunDirectory; from configs.errors import UserError\n"
        "try:\n    with RunDirectory(Path(sys.argv[1])).lock():\n        print('got', flush=True); sys.stdin.read()\n"
        "except UserError:\n    print('refused', flush=True)"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    racers = [subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) for _ in range(6)]
    said = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate(timeout=20)
    assert sorted(said) == ["got"] + ["refused"] * 5


def test_attempts_are_counted(run: RunDirectory) -> None:
    assert run.next_attempt() == 0
    run.attempt(0).make(1)
    run.attempt(9).make(1)
    (run.path / "attempts" / "notes").mkdir()
    assert run.attempts() == [0, 9]
    assert run.next_attempt() == 10


def test_a_status_is_interrupted_when_its_supervisor_is_gone(run: RunDirectory) -> None:
    assert run.read_status() is None
    me = ProcessId.current()
    status = {"state": "running", "pid": me.pid, "start": me.start, "boot": boot_id()}
    run.write_status(status)
    assert run.read_status() == status
    assert run.supervisor() == me
    for change in ({"start": me.start + 1}, {"boot": "another"}, {"pid": None}):
        run.write_status({**status, **change})
        assert (run.read_status() or {})["state"] == "interrupted"
        assert run.supervisor() is None
    run.write_status({**status, "state": "finished", "boot": "another"})
    assert (run.read_status() or {})["state"] == "finished"


def test_a_disk_that_is_full_costs_the_record_and_says_so_once(run: RunDirectory) -> None:
    run.events.mkdir()
    for _ in range(3):
        run.append_event({"type": "x"})
    assert len(run.take_warnings()) == 1
    assert run.take_warnings() == []


def test_events_are_read_back_without_a_torn_last_line(run: RunDirectory) -> None:
    for number in range(3):
        run.append_event({"type": "x", "number": number})
    with open(run.events, "a") as file:
        file.write('{"type": "to')
    assert [event["number"] for event in run.read_events()] == [0, 1, 2]


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    for number, name in enumerate(("old", "new")):
        run = RunDirectory.create(tmp_path, name)
        run.write_status({"state": "finished"})
        os.utime(run.status, (number, number))
    RunDirectory.create(tmp_path, "never-launched")
    assert [run.path.name for run in list_runs(tmp_path)] == ["new", "old"]


def test_the_lock_is_the_kernels(run: RunDirectory) -> None:
    with run.lock(), open(run.lock_file) as other:
        assert json.loads(other.read())["pid"] == os.getpid()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
