"""One line of progress on stderr: stage, count, bytes and elapsed time; moving on a terminal, sparse in a log."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

LOG_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.2


class Progress:
    """Shows what moves. Plain text only: nothing is installed yet that could draw more."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._started_s = time.monotonic()
        self._shown_s = 0.0
        self._stage = ""
        self._open_line = False

    def say(self, text: str) -> None:
        """Print a line that stays."""
        line = f"\n{text}\n" if self._open_line else f"{text}\n"
        self._open_line = False
        self._write(line)

    def update(self, stage: str, detail: str = "") -> None:
        """Show `stage` and `detail`: at once when the stage is new, then at most every few seconds."""
        now_s = time.monotonic()
        interval_s = TERMINAL_INTERVAL_S if self._terminal else LOG_INTERVAL_S
        if stage == self._stage and now_s - self._shown_s < interval_s:
            return
        self._stage, self._shown_s = stage, now_s
        line = f"[{format_seconds(now_s - self._started_s)}] {stage}"
        if detail:
            line += f": {detail}"
        if not self._terminal:
            self._write(line + "\n")
            return
        width = shutil.get_terminal_size().columns - 1
        self._write("\r" + line[:width].ljust(width))
        self._open_line = True

    def elapsed(self) -> str:
        """Time since the start, as text."""
        return format_seconds(time.monotonic() - self._started_s)

    def _write(self, text: str) -> None:
        # Whoever reads the progress may go away (`| head -1`); the set-up goes on.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def format_seconds(seconds: float) -> str:
    """`75.2` as `"1:15"`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def format_bytes(count: int) -> str:
    """`1_500_000` as `"1.5 MB"`, `2_000_000_000` as `"2.0 GB"`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
