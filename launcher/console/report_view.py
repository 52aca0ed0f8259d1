"""The comparison of runs as a table: one row per stage; groups with mean and spread, then their members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from launcher.console import metrics, text
from launcher.console.tables import Column
from launcher.report import RunReport
from launcher.results import Group, StageResult
from launcher.spread import Spread

Row = tuple[str, ...]
_WRITE: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("accuracy", lambda value: f"{100 * value:.2f}"),
    ("macro_f1", lambda value: f"{100 * value:.2f}"),
    ("error_rate", lambda value: f"{value:.2f}"),
    ("loss", lambda value: f"{value:.4f}"),
)
_SPLITS = {"test": "test", "validation": "valid.", "": ""}
COLUMNS = (
    Column("stage"),
    Column("split"),
    Column("n", right=True),
    *(Column(heading, right=True) for heading in ("acc. %", "F1 %", "error %", "loss", "time")),
)


class _Summary(NamedTuple):
    label: str
    pick: Callable[[Spread], float | None]
    of_repetitions: bool
    """It means something only where the same experiment was repeated."""


_SUMMARIES = (
    _Summary("mean", lambda spread: spread.mean, True),
    _Summary("sd", lambda spread: spread.sd, True),
    _Summary("min", lambda spread: spread.least, False),
    _Summary("max", lambda spread: spread.greatest, False),
)


def comparison(reports: Sequence[RunReport]) -> list[Row]:
    """The rows of all runs. With several runs, stages are called RUN/STAGE."""
    rows: list[Row] = []
    for report in reports:
        prefix = f"{report.name}/" if len(reports) > 1 else ""
        for entry in report.rows():
            rows += (
                _group_rows(entry, prefix) if isinstance(entry, Group) else [_stage_row(entry, prefix + entry.stage)]
            )
    return rows


def notes(reports: Sequence[RunReport]) -> list[str]:
    """What must be said below the table."""
    groups = [group for report in reports for group in report.groups if group.results]
    lines = []
    if any(group.repeated for group in groups):
        lines.append("sd: standard deviation (n - 1) over the members of a group")
    if any(not group.repeated for group in groups):
        lines.append("no mean where the members of a group differ in more than seed or fold")
    if any(
        result.split == "validation" and not _is_pretraining(result) for report in reports for result in report.results
    ):
        lines.append("valid.: the best evaluation on held-out training rows, which also chose the checkpoint")
    return lines + [
        _without_accuracy(result) for report in reports for result in report.results if _is_pretraining(result)
    ]


def _is_pretraining(result: StageResult) -> bool:
    return "perplexity" in result.evaluation


def _without_accuracy(result: StageResult) -> str:
    """`pretrain, validation: perplexity 8.21, MLM accuracy 60.11 %`."""
    return f"{result.stage}, {result.split}: {metrics.joined(metrics.evaluation_pairs(result.evaluation))}"


def _stage_row(result: StageResult, label: str) -> Row:
    figures = [_cell(result.figure(name), write) for name, write in _WRITE]
    return (label, _SPLITS[result.split], _count(result.figure("n")), *figures, text.duration(result.seconds))


def _group_rows(group: Group, prefix: str) -> list[Row]:
    done, all_ = len(group.results), len(group.members)
    count = str(all_) if done == all_ else f"{done} of {all_}"
    seconds = [result.seconds or 0.0 for result in group.results]
    head = (f"{prefix}{group.name} ({count})", *[""] * (len(COLUMNS) - 2), text.duration(sum(seconds)))
    members = [_stage_row(result, f"  {group.label(result.stage)}") for result in group.results]
    summaries = [row for row in _SUMMARIES if group.repeated or not row.of_repetitions]
    return [head, *members, *(_summary_row(group, row) for row in summaries if done > 1)]


def _summary_row(group: Group, row: _Summary) -> Row:
    found = [(group.spread(name), write) for name, write in _WRITE]
    figures = [_cell(None if spread is None else row.pick(spread), write) for spread, write in found]
    return (f"  {row.label}", "", "", *figures, "")


def _number(found: Spread, write: Callable[[float], str]) -> str:
    return write(found.mean) + (f" ± {write(found.sd)}" if found.sd is not None else "")


def _cell(value: float | None, write: Callable[[float], str]) -> str:
    return "-" if value is None else write(value)


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def summary_line(group: Group, figures: Sequence[str] = ("accuracy", "macro-F1")) -> str:
    """`5 of 5, accuracy 96.20 ± 0.31 %, macro-F1 95.80 ± 0.40 %`."""
    parts = [f"{len(group.results)} of {len(group.members)}"]
    for label, name, write in (("accuracy", *_WRITE[0]), ("macro-F1", *_WRITE[1])):
        found = group.spread(name)
        if found is None or label not in figures:
            continue
        shown = _number(found, write) if group.repeated else f"{write(found.least)} to {write(found.greatest)}"
        parts.append(f"{label} {shown} %")
    return ", ".join(parts)
