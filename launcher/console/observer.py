"""The observers of a run that a person sees: a live screen or plain lines, chosen by what stdout is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import RenderableType
from rich.live import Live

from launcher.console import lines, output, screen
from launcher.console.state import RunView, reduce
from launcher.protocol import Event

REFRESH_PER_S = 4


class LinesObserver:
    """Plain prefixed lines, thinned out by time."""

    def __init__(self, state: RunView, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self.state = state
        self._clock = clock
        self._thinning = lines.Thinning()
        self._writer = output.LineWriter(stream)

    def on_event(self, event: Event) -> None:
        """Writes what the event tells."""
        now = self._clock()
        self.state = reduce(self.state, event, now)
        written, self._thinning = lines.describe(event, self.state, self._thinning, now)
        for line in written:
            self._writer.write(line)

    def tick(self) -> None:
        """Nothing: lines are written when something happens."""

    def close(self) -> None:
        """Nothing is held open."""


class ScreenObserver:
    """One live screen, redrawn at every tick; it uses the terminal's alternate screen, so that a resize leaves nothing behind."""

    def __init__(self, state: RunView, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self.state = state
        self._clock = clock
        self._ascii = output.is_ascii(stream)
        self._console = output.make_console(stream)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self.tick()

    def on_event(self, event: Event) -> None:
        """Takes the event in; it is seen at the next tick."""
        self.state = reduce(self.state, event, self._clock())

    def tick(self) -> None:
        """Redraws the screen."""
        self._live.update(self._render(), refresh=True)

    def close(self) -> None:
        """Leaves the alternate screen; what became of the stages stays on the ordinary one."""
        self._live.stop()
        self._console.print(screen.final(self.state, self._clock(), self._console.width, self._ascii))

    def _render(self) -> RenderableType:
        width, height = self._console.size
        return screen.render(self.state, self._clock(), width, height, self._ascii)


def make_observer(state: RunView, stream: TextIO | None = None) -> LinesObserver | ScreenObserver:
    """A screen on a terminal, lines elsewhere."""
    target = stream or sys.stdout
    return ScreenObserver(state, target) if output.can_draw(target) else LinesObserver(state, target)
