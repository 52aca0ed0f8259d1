"""Runs compared: the figures of their stages, and the mean and spread of groups, read from their directories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from configs.loader import load_resolved
from configs.schema import Config
from launcher.results import FIGURES, Group, StageResult, make_groups, read_results, stages_with_results
from launcher.rundir import RunDirectory
from launcher.settings import repeated_groups


@dataclass(frozen=True)
class RunReport:
    """The results of one run."""

    name: str
    config: Config | None
    """None for a run that has no readable config."""
    results: tuple[StageResult, ...]
    groups: tuple[Group, ...]

    def rows(self) -> list[StageResult | Group]:
        """Stages alone and groups, in the order of the stages."""
        grouped = {member: group for group in self.groups for member in group.members}
        rows: dict[tuple[str, bool], StageResult | Group] = {}
        for result in self.results:
            group = grouped.get(result.stage)  # may have the name of a stage
            rows.setdefault((group.name if group else result.stage, group is None), group or result)
        return list(rows.values())


def read_run(run: RunDirectory) -> RunReport:
    """What a run has achieved so far."""
    try:
        config = load_resolved(run.config) if run.config.is_file() else None
    except ConfigError:
        config = None
    return make_report(run, config)


def make_report(run: RunDirectory, config: Config | None) -> RunReport:
    """The same with its config at hand."""
    known = tuple(config.stages) if config else ()
    stages = (*known, *(name for name in stages_with_results(run) if name not in known))
    results = tuple(read_results(run.path, stages))
    return RunReport(run.path.name, config, results, _groups(config, results) if config else ())


def _groups(config: Config, results: Sequence[StageResult]) -> tuple[Group, ...]:
    return make_groups({name: stage.group for name, stage in config.stages.items()}, repeated_groups(config), results)


def to_json(reports: Sequence[RunReport]) -> list[dict[str, Any]]:
    """The reports as JSON values; error_rate in percent, accuracy and macro_f1 as shares."""
    return [
        {
            "run": report.name,
            "stages": [_stage_json(report, result) for result in report.results],
            "groups": [group.to_json() for group in report.groups],
        }
        for report in reports
    ]


def _stage_json(report: RunReport, result: StageResult) -> dict[str, Any]:
    stage = report.config.stages.get(result.stage) if report.config else None
    return {
        "stage": result.stage,
        "task": stage.task if stage else None,
        "group": stage.group if stage else None,
        "seed": report.config.stage_seed(result.stage) if stage and report.config else None,
        "split": result.split,
        **{figure: result.figure(figure) for figure in FIGURES},
        "seconds": result.seconds,
    }
