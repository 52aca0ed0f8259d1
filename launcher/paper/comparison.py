"""Our figures beside the paper's: which run made which cell again, and what it did differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from configs.errors import ConfigError
from configs.loader import load_config
from configs.schema import Config
from configs.sweeps import REPETITIONS
from launcher import settings
from launcher.files import read_json_object
from launcher.paper.tables import CONFIGS, Cell, Paper
from launcher.report import RunReport, read_run
from launcher.results import StageResult
from launcher.rundir import RunDirectory
from launcher.spread import Spread, spread

NO_DIFFERENCE = (*REPETITIONS, "data.folds", "data.path", "data.validation", "micro_batch", "init")
"""Settings that a repetition of the paper may choose; `init` is compared by what it leads to."""


@dataclass(frozen=True)
class Repeated:
    """A cell that a run has made again."""

    cell: Cell
    run: str
    error: Spread
    split: str
    differences: tuple[str, ...]
    """Settings that are not those of configs/paper/."""


def compare(paper: Paper, runs: Sequence[RunDirectory]) -> list[Repeated]:
    """The cells for which there is a result, in the paper's order; of several runs the newest counts. runs: the newest first."""
    found: dict[Cell, Repeated] = {}
    shipped: dict[str, Config | None] = {}
    for run in runs:
        name = _config_name(run, paper)
        if name is None:
            continue
        if name not in shipped:
            shipped[name] = _load(name)
        report = read_run(run)
        for cell in paper.of_config(name):
            repeated = _repeat(cell, report, shipped[name]) if cell not in found else None
            if repeated is not None:
                found[cell] = repeated
    return [found[cell] for cell in paper.cells if cell in found]


def _config_name(run: RunDirectory, paper: Paper) -> str | None:
    """The config of configs/paper/ that a run was started with, whatever it is called."""
    started = PurePath(str((read_json_object(run.versions) or {}).get("config") or ""))
    if started.parent.name == CONFIGS.name and started.stem in paper.configs:
        return started.stem
    return run.path.name if run.path.name in paper.configs else None


def _load(name: str) -> Config | None:
    try:
        return load_config(CONFIGS / f"{name}.yaml").config
    except ConfigError:
        return None


def _repeat(cell: Cell, report: RunReport, shipped: Config | None) -> Repeated | None:
    group = next((group for group in report.groups if group.name == cell.stage and group.repeated), None)
    results: Sequence[StageResult] = group.results if group else [r for r in report.results if r.stage == cell.stage]
    error = spread([value for result in results if (value := result.figure("error_rate")) is not None])
    if error is None:
        return None
    differences: tuple[str, ...] = ()
    if report.config is not None and shipped is not None:
        differences = tuple(_differences(report.config, results[0].stage, shipped))
    return Repeated(cell, report.name, error, results[0].split, differences)


def _differences(config: Config, name: str, shipped: Config) -> list[str]:
    """What a stage, and those of the run that it starts from, do in another way than the shipped config says."""
    rows: dict[str, None] = {}
    while True:
        stage = config.stages.get(name)
        original = name if stage is None or name in shipped.stages else str(stage.group)
        if stage is None or original not in shipped.stages:
            return [*rows, f"stage {name}: not in configs/paper/"]
        wanted = settings.stage_settings(shipped, original)
        for key, before, after in settings.changes(wanted, config, name):
            if key.removeprefix(f"stages.{name}.") not in NO_DIFFERENCE and not key.startswith("amp."):
                rows[settings.shown((key.replace(f"stages.{name}.", f"{original}."), before, after))] = None
        start, meant = config.stage_start(name), shipped.stage_start(original)
        followed = _original(config, start.stage, shipped)
        if (start.run, start.step, followed) != (meant.run, meant.step, meant.stage):
            return [*rows, f"{original}.init: {meant} -> {start}"]
        if start.stage is None or start.run is not None:
            return list(rows)
        name = start.stage


def _original(config: Config, name: str | None, shipped: Config) -> str | None:
    if name is None or name in shipped.stages or name not in config.stages:
        return name
    return config.stages[name].group


def to_json(paper: Paper, repeated: Sequence[Repeated]) -> list[dict[str, Any]]:
    """Every cell of the paper with our figure or null; errors in %."""
    ours: Mapping[Cell, Repeated] = {each.cell: each for each in repeated}
    return [_cell_json(cell, ours.get(cell)) for cell in paper.cells]


def _cell_json(cell: Cell, ours: Repeated | None) -> dict[str, Any]:
    value: dict[str, Any] = {"table": cell.table, "row": cell.row, "column": cell.column, "paper": cell.error}
    value |= {"config": cell.config, "stage": cell.stage, "ours": None}
    if ours is not None:
        value["ours"] = {
            "run": ours.run,
            "split": ours.split,
            "n": ours.error.n,
            "mean": ours.error.mean,
            "sd": ours.error.sd,
            "differences": list(ours.differences),
        }
    return value
