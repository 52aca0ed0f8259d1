"""The run directory: where everything of a run lies, who holds it, and what its status files say.

The layout is written here once for the control side; ranks get their paths as arguments.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.processes import ProcessId, boot_id
from configs.errors import CannotWriteError, ConfigError, UserError
from configs.schema import NAME_PATTERN
from launcher.attempt_dir import AttemptDirectory, make_private_directory, writing
from launcher.files import read_json_object, write_atomic, write_json
from launcher.tail import JsonLinesTail

__all__ = ["AttemptDirectory", "RunDirectory", "check_name", "list_runs", "make_private_directory", "writing"]

ACTIVE_STATES = ("preparing", "running", "stopping", "restarting")
"""States of status.json while a supervisor is at work; the others are stopped, finished, failed."""


class RunDirectory:
    """One run: R = runs/NAME."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned: set[str] = set()

    @classmethod
    def create(cls, runs_dir: Path, name: str) -> RunDirectory:
        """Makes runs/NAME (0700) or takes the one that is there. Raises ConfigError for a bad name,
        CannotWriteError."""
        check_name(name)
        make_private_directory(runs_dir)
        path = runs_dir.resolve() / name
        make_private_directory(path)
        return cls(path)

    @classmethod
    def open(cls, runs_dir: Path, name: str) -> RunDirectory:
        """The run of this name. Raises ConfigError when there is none, naming those that there are."""
        check_name(name)
        path = runs_dir.resolve() / name
        if path.is_symlink() or not path.is_dir():
            known = ", ".join(run.path.name for run in list_runs(runs_dir)[:8]) or "none yet"
            raise ConfigError(f"run '{name}': not found in {runs_dir} (there are: {known})", "./run.sh runs")
        return cls(path)

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def prepared(self) -> Path:
        return self.path / "prepared.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    def run_id(self) -> str:
        """16 hexadecimal digits that no other run directory has; made at the first call. Raises CannotWriteError."""
        path = self.path / "id"
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="ascii").strip()
            if re.fullmatch(r"[0-9a-f]{16}", text):
                return text
        run_id = secrets.token_hex(8)
        with writing(path):
            write_atomic(path, run_id.encode() + b"\n")
        return run_id

    def attempt(self, number: int) -> AttemptDirectory:
        """The attempt of this number, made or not."""
        return AttemptDirectory(self.path / "attempts" / f"{number:03d}")

    def attempts(self) -> list[int]:
        """Numbers of the attempts that there are, in order."""
        with contextlib.suppress(OSError):
            return sorted(int(entry.name) for entry in (self.path / "attempts").iterdir() if entry.name.isdigit())
        return []

    def next_attempt(self) -> int:
        """The number after the newest attempt."""
        return max(self.attempts(), default=-1) + 1

    @contextlib.contextmanager
    def lock(self) -> Iterator[str]:
        """Holds the run for this process; yields a note when an earlier holder ended without a word, else "".

        The kernel releases the lock when the holder ends, however it ends. Raises UserError when another launch holds
        it, CannotWriteError.
        """
        with writing(self.lock_file):
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._take(handle)
            note = _stale_note(read_json_object(self.lock_file))
            me = ProcessId.current()
            owner = {
                "pid": me.pid,
                "start": me.start,
                "boot": boot_id(),
                "host": socket.gethostname(),
                "t": time.time(),
            }
            _rewrite(handle, json.dumps(owner).encode())
            yield note
            _rewrite(handle, b"")
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise CannotWriteError(f"{self.lock_file}: cannot be locked: {error.strerror}") from error
            owner = read_json_object(self.lock_file) or {}
            who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{_since(owner)}"
            raise UserError(
                f"run '{self.path.name}' is held by another launch: {who}",
                f"./run.sh status {self.path.name}, ./run.sh stop {self.path.name}, or choose another --name",
            ) from None

    def write_status(self, status: Mapping[str, Any], durable: bool = False) -> None:
        """Replaces status.json. A full disk is no reason to stop training: an OSError is reported once by
        `take_warnings`."""
        with self._tolerant("status.json"):
            write_json(self.status, status, durable)

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Appends to events.jsonl, as tolerant as write_status."""
        with self._tolerant("events.jsonl"):
            line = json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n"
            handle = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _tolerant(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._warned.add(f"{what} cannot be written: {error.strerror}")

    def take_warnings(self) -> list[str]:
        """What could not be written, each once; the list is then empty."""
        warnings = sorted(self._warned)
        self._warned.clear()
        return warnings

    def read_status(self) -> dict[str, Any] | None:
        """status.json, its state replaced by "interrupted" when the supervisor is gone without a last word; None
        before the first launch."""
        status = read_json_object(self.status)
        if status is not None and status.get("state") in ACTIVE_STATES and self.supervisor() is None:
            status["state"] = "interrupted"
        return status

    def read_events(self) -> list[dict[str, Any]]:
        """All complete lines of events.jsonl."""
        return JsonLinesTail(self.events).read_all()

    def supervisor(self) -> ProcessId | None:
        """The living process that runs this run on this machine; None when there is none."""
        status = read_json_object(self.status) or {}
        pid, start, boot = status.get("pid"), status.get("start"), status.get("boot")
        if not isinstance(pid, int) or not isinstance(start, int) or boot != boot_id():
            return None
        identity = ProcessId(pid, start)
        return identity if identity.alive() else None


def list_runs(runs_dir: Path) -> list[RunDirectory]:
    """The runs that have been launched, the one with the newest status first."""
    try:
        found = [
            entry
            for entry in runs_dir.resolve().iterdir()
            if re.match(NAME_PATTERN, entry.name) and not entry.is_symlink()
        ]
    except OSError:
        return []
    runs = [(run.status.stat().st_mtime, run) for run in map(RunDirectory, found) if run.status.is_file()]
    return [run for _, run in sorted(runs, key=lambda pair: pair[0], reverse=True)]


def check_name(name: str) -> None:
    """Raises ConfigError when the name could not be a directory under runs/."""
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise ConfigError(
            f"run name {name!r}: 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit",
            "--name NAME",
        )


def _rewrite(handle: int, content: bytes) -> None:
    """Best effort: the lock holds whether or not its explanation could be written."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, content, 0)


def _stale_note(owner: Mapping[str, Any] | None) -> str:
    if not owner:
        return ""
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{_since(owner)}"
    return f"the earlier launch ({who}) ended without a word; continuing"


def _since(owner: Mapping[str, Any]) -> str:
    started = owner.get("t")
    if not isinstance(started, (int, float)):
        return ""
    return time.strftime(", started %Y-%m-%d %H:%M:%S", time.localtime(started))
