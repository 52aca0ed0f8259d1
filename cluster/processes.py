"""Processes known by pid and start time, so that no other process is ever signalled, and the parent-death signal.
Linux, standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProcessId:
    """A process for all time of one boot: its pid and the start time (clock ticks since boot, field 22 of
    /proc/PID/stat)."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None when there is none."""
        fields = _stat_fields(pid)
        return None if fields is None else cls(pid, int(fields[19]))

    @classmethod
    def current(cls) -> ProcessId:
        """This process."""
        identity = cls.of(os.getpid())
        if identity is None:
            raise OSError("/proc is not mounted")
        return identity

    def alive(self) -> bool:
        """The process exists and is no zombie."""
        fields = _stat_fields(self.pid)
        return fields is not None and int(fields[19]) == self.start and fields[0] not in ("Z", "X")

    def send(self, signum: int) -> bool:
        """Sends a signal to this very process. False when it is gone (or belongs to someone else)."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, signum)
            return True
        except OSError:
            return False
        finally:
            os.close(handle)


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name; [0] is the state, [19] the start time."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].decode("ascii").split()
    except OSError:
        return None


def boot_id() -> str:
    """Identifies this boot of this machine: pids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Asks the kernel to signal this process when its parent ends, and ends at once if the parent is gone already.

    `parent` is the pid that the parent had when it started this process. See prctl(2), PR_SET_PDEATHSIG: the setting
    survives execve, not fork, and follows the THREAD that forked, so parents start processes from their main thread.
    Raises OSError.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent:
        os._exit(128 + signum)


def dies_with_me(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` for single-threaded parents: the child gets the parent-death signal and an empty signal mask."""
    parent = os.getpid()

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        die_with_parent(parent, signum)

    return in_child


def marked(variable: str, prefix: str) -> Iterator[tuple[ProcessId, str]]:
    """Every readable process whose environment has `variable` with a value that starts with `prefix`, and that value.
    Never this process."""
    needle = f"{variable}={prefix}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        identity = ProcessId.of(int(entry))
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if needle not in environment or identity is None or not identity.alive():
            continue
        for item in environment.split(b"\0"):
            if item.startswith(needle):
                yield identity, item[len(variable) + 1 :].decode("utf-8", "replace")


def kill_until_gone(find: Callable[[], Iterable[ProcessId]], timeout_s: float = 5.0) -> list[ProcessId]:
    """SIGKILLs what `find` finds, again and again until it finds nothing. Returns what is left after `timeout_s`
    (stuck in the kernel)."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [identity for identity in find() if identity.alive()]
        if not left or time.monotonic() > deadline:
            return left
        for identity in left:
            identity.send(signal.SIGKILL)
        time.sleep(0.02)


def oom_kills() -> int:
    """How often the kernel has killed for lack of memory, as far as it can be read: on this machine, or in this
    cgroup (v2)."""
    counts = [0]
    for path, name in ((Path("/proc/vmstat"), "oom_kill"), (own_cgroup() / "memory.events", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    counts.append(int(value))
    return max(counts)


def own_cgroup() -> Path:
    """Directory of this process's cgroup (v2 hierarchy); the root of the hierarchy where it cannot be told."""
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::"):
                own = root / line[3:].lstrip("/")
                return own if own.is_dir() else root
    return root
