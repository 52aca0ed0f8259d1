"""What a rank that hangs is doing: Python's stacks, the kernel's view of the process, native stacks where a tool is
installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.processes import ProcessId
from launcher.files import last_lines

DUMP_SIGNAL = signal.SIGQUIT
"""The worker's faulthandler writes its stacks at this signal (trainers/engine/stacks.py)."""
DUMP_WAIT_S = 1.0
NATIVE_WAIT_S = 20.0
STACKS_BYTES = 64 * 1024
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in an uninterruptible wait (disk, network file system or driver)",
    "T": "stopped (T state: SIGSTOP, or a job control stop)",
    "t": "stopped by a debugger",
    "Z": "ended",
}
_MEETING = (
    "all_reduce",
    "all_gather",
    "broadcast",
    "barrier",
    "backward",
    "_meet",
    "_wait_for_store",
    "init_parallel_env",
)
"""Functions in which a rank waits for its peers (backward: the gradients are summed in it)."""


def dump(workers: Sequence[tuple[ProcessId, Path]]) -> None:
    """Asks every worker that listens for its stacks, and adds the kernel's view of all of them."""
    for identity, path in workers:
        if path.exists():
            identity.send(DUMP_SIGNAL)
    time.sleep(DUMP_WAIT_S)
    for identity, path in workers:
        _append(path, f"\nprocess {identity.pid}: {describe_process(identity.pid)}\n")


def add_native(pid: int, path: Path) -> None:
    """Adds the native stacks of one process, if a tool for it is installed. Takes up to NATIVE_WAIT_S."""
    command = native_command()
    if command:
        _append(path, _native_stacks(command, pid))


def _append(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)


def native_command() -> tuple[str, ...]:
    """A tool that prints native stacks, to be followed by a pid; empty where none is installed."""
    if shutil.which("py-spy"):
        return ("py-spy", "dump", "--native", "--nonblocking", "--pid")
    if shutil.which("gdb"):
        return ("gdb", "-nx", "-batch", "-ex", "thread apply all bt 24", "-p")
    return ()


def _native_stacks(command: tuple[str, ...], pid: int) -> str:
    """Both tools may be refused (ptrace); that is then what is said."""
    try:
        done = subprocess.run(
            (*command, str(pid)), capture_output=True, stdin=subprocess.DEVNULL, timeout=NATIVE_WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"\nno native stacks: {error}\n"
    return f"\n{command[0]}:\n{done.stdout[-STACKS_BYTES:].decode('utf-8', 'replace')}\n"


def state(pid: int) -> str:
    """The process's state letter (proc_pid_stat(5)); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].decode("ascii")[:1]
    except OSError:
        return ""


def describe_process(pid: int) -> str:
    """State, kernel function and system call, as far as they can be read."""
    letter = state(pid)
    parts = [_STATES.get(letter, f"state {letter}" if letter else "gone")]
    for name, label in (("wchan", "in the kernel's"), ("syscall", "system call")):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii").strip()
            if text and text != "0":
                parts.append(f"{label} {text.split()[0]}")
    return ", ".join(parts)


def main_thread(path: Path) -> list[str]:
    """Frames of the main thread in the last dump of a stacks file, innermost first: faulthandler writes it last."""
    lines = last_lines(path, STACKS_BYTES).splitlines()
    starts = [number for number, line in enumerate(lines) if "(most recent call first)" in line]
    if not starts:
        return []
    frames = []
    for line in lines[starts[-1] + 1 :]:
        if not line.startswith("  File "):
            break
        frames.append(line.strip())
    return frames


def waits_for_peers(frames: Sequence[str]) -> bool:
    """The innermost frames are a collective."""
    return any(frame.rpartition(" in ")[2] in _MEETING for frame in frames[:4])
