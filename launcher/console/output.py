"""Where the console writes: what the terminal can do, and lines that survive a reader who has gone away."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from rich.console import Console


def can_draw(stream: TextIO) -> bool:
    """The stream is a terminal with cursor movement (not a pipe, not TERM=dumb)."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def is_ascii(stream: TextIO) -> bool:
    """The stream's encoding cannot show more than ASCII."""
    return "utf" not in (stream.encoding or "ascii").lower()


def make_console(stream: TextIO | None = None) -> Console:
    """A console that writes text as it is: no markup, no emoji codes, no highlighting of its own."""
    return Console(file=stream or sys.stdout, markup=False, emoji=False, highlight=False, soft_wrap=False)


class LineWriter:
    """Writes whole lines and flushes. A broken pipe or a full disk ends the writing, never the run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._open = True

    def write(self, line: str) -> None:
        """Writes one line, unless the reader has gone."""
        if not self._open:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._open = False
            silence(self._stream)


def silence(stream: TextIO) -> None:
    """Sends what is still buffered, and all that follows, to /dev/null: the interpreter's last flush then raises nothing."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass
