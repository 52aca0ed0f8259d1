"""From what a person asked for to a config, a topology and a plan; shared by plan, prepare, train, resume and quickstart."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.chaos import check_faults, parse_fault
from configs.errors import ConfigError
from configs.loader import Resolved, load_config, load_resolved
from configs.models import check_fits_model, local_folder
from configs.schema import Config, DataConfig, MultitaskStage, PretrainStage, Stage
from configs.starts import check_fit
from launcher import continuation, facts, model_facts, places
from launcher.anew import Anew, describe, find_anew
from launcher.files import read_json_object
from launcher.plan import Plan, Task, make_plan
from launcher.rundir import RunDirectory, check_name
from launcher.settings import changes, stage_settings
from launcher.topology import Topology, local_topology

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """The arguments of train and plan."""

    config: str
    overrides: tuple[str, ...] = ()
    stage: str | None = None
    nproc: str | None = None
    """`auto` or a number; None: as in the run's earlier launches, else auto."""
    devices: str | None = None
    resume: str = "auto"
    name: str | None = None
    runs_dir: Path | None = None
    rerun: tuple[str, ...] = ()
    """Stages, or groups of them, to train anew."""
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    chaos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A request with everything found out that can be before something is written."""

    request: Request
    resolved: Resolved
    run: RunDirectory
    plan: Plan
    started_before: bool
    earlier: dict[str, Any]
    """plan.json of the run's earlier launch; empty for a new run."""
    old: Config | None
    """The run's config before this launch; None for a new run."""

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.resolved.config


def resolve(request: Request) -> Prepared:
    """Loads the config, looks at the run of that name, and plans. Raises UserError; writes nothing."""
    path = places.config_path(request.config)
    resolved = absolute(load_config(path, request.overrides, request.name, request.seeds, request.folds))
    label = places.shown(places.config_path(request.config).absolute())
    return _prepare(request, resolved, label)


def resolve_run(run: RunDirectory, request: Request) -> Prepared:
    """The same for a run that is there, with the config and the stages that it was last started with."""
    if not run.config.is_file():
        raise ConfigError(f"run '{run.path.name}': it has no config.yaml", "start it with ./run.sh train CONFIG")
    return _prepare(request, Resolved(load_resolved(run.config), {}), places.shown(run.config), stages_of(run))


def stages_of(run: RunDirectory) -> tuple[str, ...]:
    """The stages of the run's newest launch; empty before the first."""
    planned = (read_json_object(run.plan) or {}).get("stages", ())
    return tuple(str(stage["name"]) for stage in planned if isinstance(stage, dict) and "name" in stage)


def _prepare(request: Request, resolved: Resolved, label: str, last_stages: tuple[str, ...] = ()) -> Prepared:
    config = resolved.config
    check_name(config.name)
    run = RunDirectory(places.runs_dir(request.runs_dir) / config.name)
    started = continuation.has_started(run)
    earlier = read_json_object(run.plan) or {} if started else {}
    old = _old_config(run, resolved)
    stages = last_stages or continuation.choose_stages(config, request.stage)
    rerun = tuple(name for each in request.rerun for name in continuation.choose_stages(config, each, "--rerun"))
    again = find_anew(run.path, old, config, rerun) if request.resume != "never" else ()
    set_aside = {each.stage for each in again}
    finished = tuple(name for name in continuation.finished_stages(run.path, stages) if name not in set_aside)
    resume_from = ""
    if request.resume not in ("auto", "never"):
        stages, resume_from = _from_checkpoint(request, run, stages, again)
    starts = continuation.find_starts(config, run.path, stages, finished, set_aside)
    topology, known = _look_around(request, config, run, earlier, old)
    for name, folder in starts.items():
        model = known.model and known.model.folder
        if model:
            check_fit(folder, Path(model), f"stages.{name}.init", config.model)
    pending = tuple(name for name in stages if name not in finished)
    faults = check_faults(tuple(map(parse_fault, request.chaos)), topology.world_size, pending)
    task = Task(
        root=str(places.ROOT),
        python=sys.executable,
        run_dir=str(run.path),
        config_path=label,
        stages=stages,
        finished=finished,
        anew=again,
        starts={name: str(folder) for name, folder in starts.items()},
        resume_from=resume_from,
        threads=_earlier_threads(earlier, topology),
        faults=tuple(map(str, faults)),
    )
    return Prepared(request, resolved, run, make_plan(config, topology, known, task), started, earlier, old)


def _old_config(run: RunDirectory, resolved: Resolved) -> Config | None:
    """The config of the run's earlier launches. Raises ConfigError when it cannot be read and something was trained with it."""
    if not resolved.provenance:
        return resolved.config  # it has just been read from there
    if not run.config.is_file():
        return None
    try:
        return load_resolved(run.config)
    except ConfigError:
        if continuation.has_work(run.path):
            raise
        return None


def _from_checkpoint(
    request: Request, run: RunDirectory, stages: tuple[str, ...], again: tuple[Anew, ...]
) -> tuple[tuple[str, ...], str]:
    """The stages from that of the named checkpoint on, and the checkpoint's path."""
    if again:
        raise ConfigError(
            f"--resume {request.resume}: other stages would be trained anew ({describe(again, stages)[0]})",
            "leave out --rerun and changed values, or --resume PATH",
        )
    checkpoint = Path(request.resume).expanduser().resolve()
    first = continuation.checkpoint_stage(checkpoint, run.path, stages)
    return stages[stages.index(first) :], str(checkpoint)


def _look_around(
    request: Request, config: Config, run: RunDirectory, earlier: dict[str, Any], old: Config | None
) -> tuple[Topology, facts.Facts]:
    gpus = facts.list_gpus()
    nproc = request.nproc or earlier.get("world_size") or "auto"
    topology = local_topology(nproc, request.devices, gpus, facts.count_cores(), os.environ, LOOPBACK)
    prepared = still_prepared(config, run, old)
    if "model" not in prepared:
        local_folder(config.model)  # refuses what preparation would
    model = model_facts.from_prepared(prepared, model_facts.find_model(config.model))
    if model is not None:
        check_fits_model(config, model.name, model.num_positions, model.num_layers)
    known = facts.collect(run.path, topology.world_size, model, facts.prepared_stages(prepared), gpus)
    return topology, known


def still_prepared(config: Config, run: RunDirectory, old: Config | None) -> dict[str, Any]:
    """What of the run's prepared.json holds for this config as well: the model, and the stages whose settings are the same."""
    prepared = read_json_object(run.prepared) if old is not None else None
    if prepared is None or old is None or old.model != config.model:
        return {}
    same = {
        name for name in config.stages if name in old.stages and not changes(stage_settings(old, name), config, name)
    }
    stages = prepared.get("stages")
    kept = {name: facts for name, facts in stages.items() if name in same} if isinstance(stages, dict) else {}
    return {**prepared, "stages": kept}


def _earlier_threads(earlier: dict[str, Any], topology: Topology) -> int | None:
    """Thread counts are kept at the same number of ranks: there, a continued run promises the same bits."""
    threads = earlier.get("threads_per_rank")
    return threads if isinstance(threads, int) and earlier.get("world_size") == topology.world_size else None


def absolute(resolved: Resolved) -> Resolved:
    """Paths in the config made absolute: the ranks have another working directory."""
    config = resolved.config
    stages = {name: _absolute_stage(stage) for name, stage in config.stages.items()}
    model = config.model
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())
    changes = {"data": _absolute_data(config.data), "stages": stages, "model": model}
    return replace(resolved, config=config.model_copy(update=changes))


def _absolute_stage(stage: Stage) -> Stage:
    if isinstance(stage, MultitaskStage):
        data_sets = {name: _absolute_data(data) for name, data in stage.data_sets.items()}
        return stage.model_copy(update={"data_sets": data_sets})
    changes: dict[str, object] = {"data": _absolute_data(stage.data)}
    if isinstance(stage, PretrainStage):
        changes["corpora"] = tuple(_absolute_data(corpus) for corpus in stage.corpora)
    return stage.model_copy(update=changes)


def _absolute_data(data: DataConfig | None) -> DataConfig | None:
    if data is None or data.path is None:
        return data
    return data.model_copy(update={"path": str(Path(data.path).expanduser().absolute())})
