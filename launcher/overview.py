"""What a run looks like from outside, read from its directory alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.console import metrics
from launcher.request import stages_of
from launcher.results import read_results
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
    results = read_results(run.path, _stages(run))
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
        result=_last_result([result.evaluation or result.done.get("metrics") or {} for result in results]),
        results=tuple({"stage": result.stage, **result.done, "test": dict(result.evaluation)} for result in results),
    )


def _stages(run: RunDirectory) -> tuple[str, ...]:
    """The stages of the newest launch, after those that only earlier ones have finished."""
    planned = stages_of(run)
    finished = sorted(path.parent.name for path in run.path.glob("*/done.json"))
    return (*(name for name in finished if name not in planned), *planned)


def _last_result(figures: list[Mapping[str, Any]]) -> str:
    shown = [pairs[0] for entry in figures if (pairs := metrics.evaluation_pairs(entry))]
    return f"{shown[-1][0]} {shown[-1][1]}" if shown else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0
