"""Why a run is to stop: signals to the supervisor (the first asks for a checkpoint and an end, the second for an end at
once) and the time limit."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

from configs.errors import Exit

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SAME_REQUEST_S = 0.3
"""Wrappers such as `timeout` and batch systems signal a process and its group: what comes that close is one request."""


class StopRequests:
    """A context in which signals are counted instead of ending the process. Main thread only."""

    def __init__(self, time_limit_s: float | None = None, reserve_s: float = 0.0) -> None:
        """A stop is due `reserve_s` before the time limit (from now), but never in the first nine tenths of it."""
        self._deadline: float | None = None
        if time_limit_s is not None:
            self._deadline = time.monotonic() + time_limit_s - min(reserve_s, time_limit_s / 10)
        self.signals: list[int] = []
        self._last = 0.0
        self._previous: dict[int, Any] = {}
        self._wakeup = (-1, -1)
        self._previous_wakeup = -1

    def __enter__(self) -> StopRequests:
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for signum in SIGNALS:
            self._previous[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        for fd in self._wakeup:
            os.close(fd)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.signals or now - self._last > SAME_REQUEST_S:
            self.signals.append(signum)
        self._last = now

    @property
    def wakeup_fd(self) -> int:
        """Becomes readable when a signal comes; `clear` empties it."""
        return self._wakeup[0]

    def clear(self) -> None:
        """Empties the wake-up pipe."""
        try:
            while os.read(self._wakeup[0], 64):
                pass
        except BlockingIOError:
            return

    @property
    def requested(self) -> bool:
        """A stop was asked for."""
        return bool(self.signals) or self._time_is_up

    @property
    def kill(self) -> bool:
        """An end at once was asked for."""
        return len(self.signals) > 1

    @property
    def reason(self) -> str:
        """Name of the first signal, or the time limit; empty before there is one."""
        if self.signals:
            return signal.Signals(self.signals[0]).name
        return "time limit" if self._time_is_up else ""

    @property
    def _time_is_up(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def exit_code(self) -> int:
        """Exit code when nothing could be saved: 130 after Ctrl-C, else 143."""
        return int(Exit.SIGINT if self.signals and self.signals[0] == signal.SIGINT else Exit.SIGTERM)
