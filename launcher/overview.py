"""What a run looks like from outside, read from its directory alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.console import metrics
from launcher.console.report_view import summary_line
from launcher.files import read_json_object
from launcher.results import Group, StageResult, make_groups, read_results, stages_with_results
from launcher.rundir import RunDirectory, list_runs


@dataclass(frozen=True)
class Overview:
    """One run: its state (`interrupted`: it says running, but its supervisor is gone), where it is, what it has reached."""

    name: str
    path: str
    state: str
    stage: str = ""
    step: int = 0
    total_steps: int = 0
    attempt: int = 0
    t: float = 0.0
    """Unix time of the last change of its status."""
    pid: int | None = None
    exit_code: int | None = None
    root_cause: Mapping[str, Any] | None = None
    result: str = ""
    """Figures of the stage that was finished last, as one line."""
    results: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    groups: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    """Of stages that are summed up together; `summary` is the line for people."""

    @property
    def steps(self) -> str:
        """`120/456`, or `-` before the first step."""
        if not self.stage:
            return "-"
        return f"{self.step:,}/{self.total_steps:,}" if self.total_steps else f"{self.step:,}"


def list_overviews(runs_dir: Path) -> list[Overview]:
    """All runs that have been launched, the newest status first."""
    return [describe(run) for run in list_runs(runs_dir)]


def describe(run: RunDirectory) -> Overview:
    """One run. A run that has only been prepared has the state `new`."""
    status = run.read_status() or {}
    results = read_results(run.path, stages_with_results(run))
    groups = _groups(run, results)
    supervisor = run.supervisor()
    return Overview(
        name=run.path.name,
        path=str(run.path),
        state=str(status.get("state") or "new"),
        stage=str(status.get("stage") or ""),
        step=_whole(status.get("step")),
        total_steps=_whole(status.get("total_steps")),
        attempt=_whole(status.get("attempt")),
        t=float(status.get("t") or 0.0),
        pid=supervisor.pid if supervisor else None,
        exit_code=status.get("exit_code"),
        root_cause=status.get("root_cause"),
        result=_last_result(results, groups),
        results=tuple({"stage": result.stage, **result.done, "test": dict(result.evaluation)} for result in results),
        groups=tuple({**group.to_json(), "summary": summary_line(group)} for group in groups),
    )


def _groups(run: RunDirectory, results: list[StageResult]) -> tuple[Group, ...]:
    """As the plan of the newest launch has them: quicker to read than the config."""
    plan = read_json_object(run.plan) or {}
    group_of = {str(stage["name"]): stage.get("group") for stage in plan.get("stages", ()) if "name" in stage}
    return make_groups(group_of, plan.get("repeated", ()), results)


def _last_result(results: list[StageResult], groups: tuple[Group, ...]) -> str:
    """The first figure of the stage that comes last, or of its group."""
    figures = [(result, pairs[0]) for result in results if (pairs := metrics.evaluation_pairs(_metrics(result)))]
    if not figures:
        return ""
    last, (label, value) = figures[-1]
    group = next((group for group in groups if group.repeated and last in group.results), None)
    return summary_line(group, ("accuracy",)) if group else f"{label} {value}"


def _metrics(result: StageResult) -> Mapping[str, Any]:
    return result.evaluation or result.done.get("metrics") or {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
