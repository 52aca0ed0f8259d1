"""The last words of a launch: how it ended, why, where the log is, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from launcher.console import output, tables, text
from launcher.console.state import RunView
from launcher.protocol import Outcome, RootCause


def outcome_lines(name: str, outcome: Outcome, last_step: int | None = None) -> list[str]:
    """The end of the screen. For a failure: the failing rank's own traceback, one root cause, the log, the next command."""
    if outcome.state == "finished":
        return [f"run {name}: finished"]
    if outcome.state == "stopped":
        return [_stopped_line(name, outcome, last_step)]
    cause = outcome.root_cause
    if cause is None:
        return [f"run {name}: failed (exit code {outcome.exit_code})", f"next: ./run.sh logs {name}"]
    lines = [*_traceback(cause), f"root cause: {cause.line()}", *(f"  {detail}" for detail in cause.details)]
    if outcome.note:
        lines.append(outcome.note)
    if cause.log:
        lines.append(f"log: {cause.log}")
    return [*lines, f"next: {cause.hint or f'./run.sh resume {name} (continues from the last checkpoint)'}"]


def _stopped_line(name: str, outcome: Outcome, last_step: int | None) -> str:
    if outcome.exit_code != 75:
        return (
            f"run {name}: stopped at once, no new checkpoint; continue from the last one with: ./run.sh resume {name}"
        )
    at = f" at step {last_step:,}, saved" if last_step is not None else ""
    return f"run {name}: stopped{at}; continue with: ./run.sh resume {name}"


def _traceback(cause: RootCause) -> list[str]:
    if not cause.traceback.strip():
        return []
    where = f"rank {cause.rank}" if cause.rank is not None else "the failing process"
    return [f"traceback of {where}:", *text.printable(cause.traceback).rstrip().splitlines()]


def print_outcome(name: str, outcome: Outcome, view: RunView) -> None:
    """Prints `outcome_lines`; a reader who has gone away is no error."""
    stages = [stage for stage in view.stages if stage.checkpoint is not None]
    last = stages[-1].checkpoint if stages else None
    write_lines(outcome_lines(name, outcome, last))


def write_lines(lines: Sequence[str]) -> None:
    """Lines to stdout."""
    writer = output.LineWriter(sys.stdout)
    for line in lines:
        writer.write(line)


def print_table(
    title: str, columns: Sequence[tables.Column], rows: Sequence[Sequence[str]], console: Console | None = None
) -> None:
    """A table on stdout, as wide as the terminal allows."""
    target = console or output.make_console()
    target.print(tables.make_table(title, columns, rows, output.is_ascii(sys.stdout)))


def print_results(title: str, name: str, rows: Sequence[Sequence[str]], pretrained: str = "") -> None:
    """The table of results and what can be done with them."""
    if rows:
        headings = ("stage", "metric", "value", "time")
        print_table(title, [tables.Column(heading, heading in ("value", "time")) for heading in headings], rows)
    write_lines(next_lines(name, pretrained))


def next_lines(name: str, pretrained: str = "") -> list[str]:
    """Commands that make use of a finished run; `pretrained`: its last stage where it has no classifier."""
    if pretrained:
        return [
            "next:",
            f"  init: {name}/{pretrained}   in a stage of another config, to start from these weights",
            f"  ./run.sh export {name} --format hf   for Transformers; or paddlenlp",
        ]
    return [
        "next:",
        f'  ./run.sh predict {name} --text "..."   label and probability of a text',
        f"  ./run.sh evaluate {name}               evaluate on the test split again",
        f"  ./run.sh logs {name}                   complete output of every rank",
    ]


def finished_before_line(name: str) -> str:
    """For a start that finds nothing left to do."""
    return f"run {name}: finished already, nothing to do; to train a stage anew: ./run.sh train CONFIG --rerun STAGE"
