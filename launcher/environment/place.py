"""Where the environment lives, and how it changes without ever being half there.

    .venv -> .venv.d/env-3f2c81d0     a symbolic link, replaced in one rename when an environment is complete
    .venv.d/lock                      held (flock) by the one process that makes an environment
    .venv.d/setup.log                 everything pip said, mode 0600
    .venv.d/env-*/stamp               what the environment was made from
    .venv.d/align -> align-5d0b7c12   the environment of the alignment's reference (reference.py), in the same way

An environment is made in a new directory under the lock, so one that works stays in use until the next is complete,
and whatever an interrupted set-up leaves behind (kill -9, power, full disk) is swept by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import CANNOT_WRITE, UNAVAILABLE, USAGE, SetupError
from .progress import Progress, format_seconds

LOCK_TIMEOUT_S = 3 * 3600.0


@dataclass(frozen=True)
class Stamp:
    """What a complete environment was made from. `identity` is the text of locks.identity()."""

    identity: str
    python_version: str
    python_path: str
    device: str
    extras: tuple[str, ...]

    def text(self) -> str:
        """The stamp file: the identity first, because run.sh compares it as a prefix."""
        return (
            f"{self.identity}\npython {self.python_version} {self.python_path}\n"
            f"device {self.device}\nextras {' '.join(self.extras)}\n"
        )

    @staticmethod
    def parse(text: str) -> Stamp | None:
        """Read a stamp file back; None when it is not one."""
        identity: list[str] = []
        values: dict[str, str] = {}
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key in ("python", "device", "extras"):
                values[key] = value
            else:
                identity.append(line)
        version, _, path = values.get("python", "").partition(" ")
        if not (identity and path and values.get("device")):
            return None
        return Stamp("\n".join(identity), version, path, values["device"], tuple(values.get("extras", "").split()))


class Place:
    """An environment of one project root: the project's own, or another of a name."""

    def __init__(self, root: Path, name: str = "env") -> None:
        """`name`: what the directories begin with; all but "env" have their link beside them, and a log of their own."""
        self.root = root
        self.name = name
        self.store = root / ".venv.d"
        self.link = root / ".venv" if name == "env" else self.store / name
        self.log = self.store / ("setup.log" if name == "env" else f"setup-{name}.log")

    def current(self) -> Stamp | None:
        """The stamp of the environment in use; None when there is none or it does not work."""
        if not os.access(self.link / "bin" / "python", os.X_OK):
            return None
        try:
            return Stamp.parse((self.link / "stamp").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def check_link(self) -> None:
        """Refuse to replace a `.venv` that somebody else made."""
        if self.link.exists() and not self.link.is_symlink():
            raise SetupError(
                f"{self.link} exists and was not made by run.sh (run.sh makes a symbolic link there), so it is left "
                f"alone.\n  Next: use it (./run.sh --python {self.link}/bin/python COMMAND), or move it away: "
                f"mv {self.link} {self.link}.mine",
                USAGE,
            )

    @contextlib.contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the set-up lock, waiting visibly while another process has it."""
        try:
            self.store.mkdir(mode=0o755, exist_ok=True)
            descriptor = os.open(self.store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_write(self.store, error) from error
        try:
            _wait_for_lock(descriptor, progress)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def new_environment(self) -> Path:
        """The path, not yet existing, of the environment to make."""
        return self.store / f"{self.name}-{secrets.token_hex(4)}"

    def open_log(self) -> None:
        """Start an empty log that only its owner can read (pip may print index addresses)."""
        self.log.unlink(missing_ok=True)
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def commit(self, environment: Path, stamp: Stamp) -> None:
        """Make a finished environment the one in use: files to disk, stamp, then one rename of the link."""
        os.sync()
        partial = environment / "stamp.partial"
        with partial.open("w", encoding="utf-8") as file:
            file.write(stamp.text())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(environment / "stamp")
        link = self.store / "link.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(environment, self.link.parent))
        self.check_link()
        link.rename(self.link)

    def sweep(self) -> int:
        """Remove environments that are neither in use nor run from by a process; returns how many were removed."""
        keep = {os.path.realpath(self.link), *_run_from(self.store, self.name)}
        removed = 0
        for path in self.store.glob(f"{self.name}-*"):
            if os.path.realpath(path) not in keep:
                shutil.rmtree(path, ignore_errors=True)
                removed += not path.exists()
        return removed


def _wait_for_lock(descriptor: int, progress: Progress) -> None:
    started_s = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        waited_s = time.monotonic() - started_s
        holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        if waited_s > LOCK_TIMEOUT_S:
            raise SetupError(
                f"Waited {format_seconds(waited_s)} for the set-up that {holder} is doing.\n"
                "  Next: see what that process does, end it if it hangs, then call again.",
                UNAVAILABLE,
            )
        progress.update(f"waiting for the set-up that {holder} is doing")
        time.sleep(0.2)


def _run_from(store: Path, name: str) -> set[str]:
    """Environments `name`-* of `store` that a process of this machine runs from: by its command line or what it has mapped."""
    prefix = f"{os.path.realpath(store)}/{name}-".encode()
    pattern = re.compile(re.escape(prefix) + rb"[0-9a-f]+")
    used = set()
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "maps"):
            with contextlib.suppress(OSError):
                used |= set(pattern.findall((process / file).read_bytes()))
    return {os.fsdecode(path) for path in used}


def cannot_write(path: Path, error: OSError) -> SetupError:
    """The error for a place that cannot be written, with the way out."""
    return SetupError(
        f"Cannot write {path}: {error.strerror or error}.\n"
        "  Next: make room or get write permission there, copy the project to a place of your own, or use an "
        "interpreter that has the packages: ./run.sh --python PATH COMMAND",
        CANNOT_WRITE,
    )
