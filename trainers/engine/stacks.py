"""Python's stacks of this process, written by C code that needs neither the interpreter nor its lock: after a crash, and
whenever the node's agent asks by SIGQUIT."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

DUMP_SIGNAL = signal.SIGQUIT


def dump_on_request(path: Path) -> None:
    """From now on DUMP_SIGNAL appends the stacks of all threads to a file. The file is there exactly when the signal is safe."""
    faulthandler.register(DUMP_SIGNAL, file=_open(path), all_threads=True, chain=False)


def dump_on_crash(path: Path) -> None:
    """From now on a crash in native code writes the stacks to a file before whatever else was to happen at that signal. To be
    called after Paddle is imported: it installs handlers of its own, which then come second."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    faulthandler.enable(file=_open(path))


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
