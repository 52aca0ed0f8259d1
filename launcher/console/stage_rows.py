"""The stages on the live screen, one line each; where there is no room for all, stages of a group that stand alike share a line."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.console import metrics, text
from launcher.console.state import StageView
from launcher.spread import spread


@dataclass(frozen=True)
class Glyphs:
    """Characters that an ASCII terminal cannot show, and their stand-ins."""

    done: str = "✓"
    running: str = "●"
    pending: str = "·"
    failed: str = "✗"
    separator: str = " · "
    rule: str = "─"
    ellipsis: str = "…"


ASCII = Glyphs("+", ">", ".", "x", " | ", "-", "..")


@dataclass(frozen=True)
class Bundle:
    """Stages that stand alike and share a line."""

    stages: tuple[StageView, ...]

    @property
    def status(self) -> str:
        """What all of them are."""
        return self.stages[0].status

    @property
    def name(self) -> str:
        """That of the group, or of the first one."""
        return self.stages[0].group or self.stages[0].name


Row = StageView | Bundle
_AROUND = 3
"""Columns of the mark, and of the spaces behind it and behind the name."""


def visible(stages: Sequence[StageView], max_rows: int) -> list[Row]:
    """All stages where they fit, else with bundles, else the window of those around the running one."""
    if len(stages) <= max_rows:
        return list(stages)
    rows = _bundled(stages)
    current = next((i for i, row in enumerate(rows) if row.status in ("running", "pending")), len(rows) - 1)
    first = max(0, min(current - 1, len(rows) - max_rows))
    return rows[first : first + max_rows]


def _bundled(stages: Sequence[StageView]) -> list[Row]:
    """Neighbours of the same group that are all done, or all pending, as one."""
    rows: list[Row] = []
    for (group, status), found in itertools.groupby(stages, key=lambda stage: (stage.group, stage.status)):
        alike = tuple(found)
        if group is not None and status in ("done", "pending") and len(alike) > 1:
            rows.append(Bundle(alike))
        else:
            rows += alike
    return rows


def render(rows: Sequence[Row], now: float, width: int, glyphs: Glyphs) -> list[RenderableType]:
    """One line per row; the names have the same width in all of them."""
    least = min(16, max(8, width // 6))
    names = max(least, min(width // 3, max((len(row.name) for row in rows), default=0)))
    return [_line(row, now, width, names, glyphs) for row in rows]


def _line(row: Row, now: float, width: int, name_width: int, glyphs: Glyphs) -> RenderableType:
    marks = {
        "done": (glyphs.done, "green"),
        "running": (glyphs.running, "cyan"),
        "failed": (glyphs.failed, "red"),
    }
    mark, style = marks.get(row.status, (glyphs.pending, "yellow" if row.status == "stopped" else "dim"))
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(width=1)
    line.add_column(width=name_width, no_wrap=True, overflow="crop")
    name = shortened(row.name, name_width, glyphs.ellipsis)
    if isinstance(row, StageView) and row.status == "running":
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        total = row.total_steps or None
        bar = ProgressBar(total=total or 100, completed=row.step, pulse=total is None, animation_time=now)
        line.add_row(Text(mark, style), Text(name, "bold"), bar, Text(_progress_text(row, now, width)))
        return line
    line.add_column(ratio=1, no_wrap=True, overflow="crop")
    room = width - name_width - _AROUND
    words = _bundle_text(row) if isinstance(row, Bundle) else _ended_text(row, room)
    line.add_row(Text(mark, style), Text(name), Text(words, style="" if row.status == "done" else "dim"))
    return line


def shortened(name: str, width: int, ellipsis: str = Glyphs.ellipsis) -> str:
    """A name that is too long without its middle: what tells the members of a sweep apart stands at the end."""
    if len(name) <= width:
        return name
    room = width - len(ellipsis)
    return name[: room // 3] + ellipsis + name[len(name) - (room - room // 3) :]


def _bundle_text(bundle: Bundle) -> str:
    number = text.plural(len(bundle.stages), "stage")
    if bundle.status == "pending":
        return f"{number} pending"
    accuracies = [stage.metrics["accuracy"] for stage in bundle.stages if "accuracy" in stage.metrics]
    found = spread(accuracies)
    figures = f": accuracy {text.percent(found.least)} to {text.percent(found.greatest)}" if found else ""
    return f"{number} done in {text.duration(sum(stage.seconds for stage in bundle.stages))}{figures}"


def _progress_text(stage: StageView, now: float, width: int) -> str:
    total = f"/{stage.total_steps:,}" if stage.total_steps else ""
    steps = f"{stage.step:,}{total}"
    if width < 60:
        return steps
    epoch = stage.progress.get("epoch")
    parts = [
        steps,
        f"epoch {epoch:.2f}" if isinstance(epoch, (int, float)) else "",
        f"{text.duration(stage.eta_s(now))} left",
    ]
    return "  ".join(part for part in parts if part)


def _ended_text(stage: StageView, room: int) -> str:
    """How a stage ended and its figures, as many of the first as there is room for."""
    if stage.status == "pending":
        return f"pending{': ' + stage.task if stage.task not in ('', stage.name) else ''}"
    word = {"early_stopping": "stopped early"}.get(stage.reason, stage.status)
    took = f" in {text.duration(stage.seconds)}" if stage.seconds else ""
    begin, pairs = f"{word} at step {stage.step:,}{took}", metrics.evaluation_pairs(stage.metrics)
    texts = [begin, *(f"{begin}: {metrics.joined(pairs[:count])}" for count in range(1, len(pairs) + 1))]
    return next((text for text in reversed(texts) if len(text) <= room), begin)
