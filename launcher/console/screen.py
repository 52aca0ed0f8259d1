"""The live screen as a pure function of the state, the time and the size of the terminal."""

from __future__ import annotations

import textwrap
from collections import Counter

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from launcher.console import metrics, stage_rows, text
from launcher.console.stage_rows import ASCII, Glyphs
from launcher.console.state import Metrics, RankView, RunView, StageView, Work

MAX_RANK_ROWS = 16
MAX_FINAL_ROWS = 40
LATE_BEAT_S = 5.0
_STATE_STYLES = {
    "running": "green",
    "finished": "green",
    "failed": "red",
    "stopping": "yellow",
    "restarting": "yellow",
    "stopped": "yellow",
}
_RANK_STYLES = {"running": "green", "done": "green", "failed": "red", "lost": "red"}


def render(state: RunView, now: float, width: int, height: int, ascii_only: bool = False) -> RenderableType:
    """The whole screen, at most `height` lines where the content allows it."""
    glyphs = ASCII if ascii_only else Glyphs()
    rows = stage_rows.visible(state.stages, max_rows=max(3, height - 15))
    top: list[RenderableType] = [*_header(state, now, width, glyphs), _rule(glyphs)]
    top += stage_rows.render(rows, now, width, glyphs)
    details = _details(state, width)
    # Every part is one line high. Beside them: two rules and the column names; at least three lines about the ranks, and the hint.
    spare = height - len(top) - len(details) - 3
    messages = _messages(state, width, newest=4 if height > 30 else 2, max_lines=3)
    footer = [*messages[max(0, len(messages) - max(0, spare - 4)) :], _line(Text(_hint(state), style="dim"))]
    room = spare - len(footer)
    ranks = _rank_table(state, now, width, max_rows=max(2, min(MAX_RANK_ROWS, room)))
    return Group(*top, _rule(glyphs), *details, _rule(glyphs), ranks, *footer)


def final(state: RunView, now: float, width: int, ascii_only: bool = False) -> RenderableType:
    """What stays on the terminal after the end: the header, every stage and the newest messages."""
    glyphs = ASCII if ascii_only else Glyphs()
    rows = stage_rows.visible(state.stages, max_rows=MAX_FINAL_ROWS)
    stages = stage_rows.render(rows, now, width, glyphs)
    return Group(
        *_header(state, now, width, glyphs), _rule(glyphs), *stages, *_messages(state, width, newest=6, max_lines=9)
    )


def _line(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    return line


def _rule(glyphs: Glyphs) -> Rule:
    return Rule(characters=glyphs.rule, style="dim")


def _header(state: RunView, now: float, width: int, glyphs: Glyphs) -> list[RenderableType]:
    header = state.header
    title = Table.grid(expand=True)
    title.add_column(ratio=1, no_wrap=True, overflow="crop")
    title.add_column(justify="right", no_wrap=True)
    name = Text.assemble((header.name, "bold"), "  ", (header.config, "dim"))
    attempt = f"attempt {state.attempt}  " if state.attempt else ""
    right = Text.assemble(
        attempt,
        (state.state, _STATE_STYLES.get(state.state, "cyan")),
        f"  {text.duration(now - state.started)}",
    )
    title.add_row(name, right)
    ranks = text.plural(header.world_size, "rank") + (f" on {header.num_nodes} nodes" if header.num_nodes > 1 else "")
    threads = f"{text.plural(header.threads, 'thread')} per rank"
    parts = [header.model, f"{ranks}, {threads}", header.device, f"AMP {header.amp}" if header.amp else ""]
    return [title, *(_line(Text(line)) for line in _joined([part for part in parts if part], glyphs.separator, width))]


def _joined(parts: list[str], separator: str, width: int) -> list[str]:
    """The parts on as few lines as they fit on."""
    lines = [""]
    for part in parts:
        longer = lines[-1] + separator + part if lines[-1] else part
        if lines[-1] and len(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def _details(state: RunView, width: int) -> list[RenderableType]:
    """Metrics of the running stage, its evaluations, its last checkpoint, and other work under way."""
    lines: list[RenderableType] = []
    stage = state.current or next((other for other in state.stages if other.status == "stopped"), None)
    if stage is not None:
        lines += [_line(line) for line in _pack(metrics.progress_pairs(stage.progress), width)]
        lines += _evaluations(stage)
        if stage.checkpoint is not None:
            lines.append(_line(Text.assemble(("saved ", "dim"), f"step {stage.checkpoint:,}")))
    if state.work is not None:
        lines.append(_work_row(state.work, width))
    return lines or [_line(Text("starting" if state.ranks else "preparing", style="dim"))]


def _evaluations(stage: StageView) -> list[RenderableType]:
    """The last evaluation, and the best one where that is another."""
    latest = "best " if stage.evaluation == stage.best else "last "
    shown = [(latest, stage.evaluation)] + ([("best ", stage.best)] if latest == "last " else [])
    return [
        _line(Text.assemble((label, "dim"), f"{entry['split']} at step {entry['step']:,}: {_figures(entry)}"))
        for label, entry in shown
        if entry
    ]


def _figures(entry: Metrics) -> str:
    return metrics.joined(metrics.evaluation_pairs(entry))


def _pack(pairs: list[metrics.Pair], width: int) -> list[Text]:
    """Label-value pairs, as many on a line as fit."""
    lines, used = [Text()], 0
    for label, value in pairs:
        needed = len(label) + len(value) + 1
        if used and used + 2 + needed > width:
            lines.append(Text())
            used = 0
        if used:
            lines[-1].append("   ")
            used += 3
        lines[-1].append(label, "dim").append(f" {value}")
        used += needed
    return lines if pairs else []


def _work_row(work: Work, width: int) -> RenderableType:
    row = Table.grid(expand=True, padding=(0, 1))
    row.add_column(width=max(16, width // 3), no_wrap=True, overflow="crop")
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=work.total or 100, completed=work.done, pulse=not work.total, animation_time=0.0)
    row.add_row(Text(work.label), bar, Text(text.amounts(work.done, work.total, work.unit)))
    return row


def _rank_table(state: RunView, now: float, width: int, max_rows: int) -> RenderableType:
    ranks = sorted(state.ranks.values(), key=lambda view: (view.node, view.rank))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False, show_edge=False)
    for column in ("rank", "state", "phase"):
        table.add_column(column, no_wrap=True)
    for column in ("step", "heartbeat", "memory") if width >= 50 else ("step",):
        table.add_column(column, justify="right", no_wrap=True)
    shown = ranks if len(ranks) <= max_rows else sorted(ranks, key=lambda view: _worst_first(view, now))[: max_rows - 1]
    for view in shown:
        cells = _rank_cells(view, now)
        table.add_row(*(cells if width >= 50 else cells[:4]))
    if len(shown) == len(ranks):
        return table
    return Group(_line(Text(_summary(ranks), style="bold")), table)


def _rank_cells(view: RankView, now: float) -> list[Text]:
    age = None if view.beat is None else max(0.0, now - view.beat)
    late = age is not None and age > LATE_BEAT_S and view.state == "running"
    memory = text.size(view.rss_bytes) if view.rss_bytes else "-"
    if view.device_bytes:
        memory += f" + {text.size(view.device_bytes)} GPU"
    return [
        Text(f"{view.node}:{view.rank}"),
        Text(view.end or view.state, _RANK_STYLES.get(view.state, "")),
        Text(view.phase.replace("_", " ")),
        Text(f"{view.step:,}"),
        Text("-" if age is None else f"{age:.1f}s", "red" if late else ""),
        Text(memory),
    ]


def _worst_first(view: RankView, now: float) -> tuple[int, float, int, int]:
    trouble = {"failed": 0, "lost": 0, "starting": 1}.get(view.state, 2)
    return (trouble, -(now - view.beat) if view.beat is not None else float("-inf"), view.step, view.rank)


def _summary(ranks: list[RankView]) -> str:
    states = Counter(view.state for view in ranks)
    steps = [view.step for view in ranks]
    counted = ", ".join(f"{number:,} {name}" for name, number in sorted(states.items()))
    return f"{len(ranks):,} ranks: {counted}; steps {min(steps):,} to {max(steps):,}; the ones to look at:"


def _messages(state: RunView, width: int, newest: int, max_lines: int) -> list[RenderableType]:
    """The newest messages, each folded into at most `max_lines` lines."""
    styles = {"warning": "yellow", "error": "red"}
    lines: list[RenderableType] = []
    for when, level, message in state.messages[-newest:]:
        label = f"{level}: " if level != "info" else ""
        stamp = f"+{text.duration(when - state.started)} "
        folded = textwrap.wrap(
            stamp + label + text.printable(message), max(20, width), subsequent_indent=" " * len(stamp)
        )
        lines += [_line(Text(line, styles.get(level, ""))) for line in folded[:max_lines]]
    return lines


def _hint(state: RunView) -> str:
    if state.state == "stopping":
        return text.STOPPING
    if state.state == "restarting":
        return "Ctrl-C: stop now; ./run.sh resume goes on from the last checkpoint"
    if state.state in ("finished", "stopped", "failed"):
        return ""
    return "Ctrl-C: checkpoint at the next step, then stop"
