"""The comparison of runs as a table: one row per stage; groups with mean and spread, then their members."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from launcher.console import text
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
COLUMNS = (
    Column("stage"),
    Column("split"),
    Column("n", right=True),
    *(Column(heading, right=True) for heading in ("acc. %", "F1 %", "error %", "loss", "time")),
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
        lines.append("mean ± standard deviation (n - 1) over the members of a group")
    if any(not group.repeated for group in groups):
        lines.append("no mean where the members of a group differ in more than seed or fold")
    if any(result.split == "validation" for report in reports for result in report.results):
        lines.append("validation: the best evaluation on held-out training rows, which also chose the checkpoint")
    return lines


def _stage_row(result: StageResult, label: str) -> Row:
    figures = [_cell(result.figure(name), write) for name, write in _WRITE]
    return (label, result.split, _count(result.figure("n")), *figures, text.duration(result.seconds))


def _group_rows(group: Group, prefix: str) -> list[Row]:
    done, all_ = len(group.results), len(group.members)
    count = str(all_) if done == all_ else f"{done} of {all_}"
    members = [_stage_row(result, f"  {group.label(result.stage)}") for result in group.results]
    splits, seconds = {result.split for result in group.results}, [result.seconds or 0.0 for result in group.results]
    counts = {result.figure("n") for result in group.results}
    shared = (splits.pop() if len(splits) == 1 else "", _count(counts.pop() if len(counts) == 1 else None))
    head = (f"{prefix}{group.name} ({count})", *shared, *_summary(group, _mean), text.duration(sum(seconds)))
    ends = [(f"  {word}", "", "", *_summary(group, pick), "") for word, pick in (("min", _least), ("max", _greatest))]
    return [head, *members, *(ends if done > 1 else [])]


def _summary(group: Group, pick: Callable[[Group, Spread, Callable[[float], str]], str]) -> list[str]:
    found = [(group.spread(name), write) for name, write in _WRITE]
    return ["-" if spread is None else pick(group, spread, write) for spread, write in found]


def _mean(group: Group, found: Spread, write: Callable[[float], str]) -> str:
    """Mean and deviation of an experiment that was repeated; between different settings there is no such thing."""
    if not group.repeated:
        return ""
    return write(found.mean) + (f" ± {write(found.sd)}" if found.sd is not None else "")


def _least(group: Group, found: Spread, write: Callable[[float], str]) -> str:
    return write(found.least)


def _greatest(group: Group, found: Spread, write: Callable[[float], str]) -> str:
    return write(found.greatest)


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
        shown = _mean(group, found, write) or f"{write(found.least)} to {write(found.greatest)}"
        parts.append(f"{label} {shown} %")
    return ", ".join(parts)
