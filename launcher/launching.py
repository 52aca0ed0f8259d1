"""One launch of a run, from the request to the exit code: run directory, supervisor, console, results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cluster.local import LocalTransport
from configs.errors import CannotWriteError, ConfigError, Exit
from configs.loader import dump_resolved
from launcher import versions
from launcher.anew import describe, remember_removed, set_aside, stage_result
from launcher.console import ending, state
from launcher.console.observer import make_observer
from launcher.files import read_json_object, write_atomic, write_json
from launcher.places import ROOT
from launcher.plan import Plan, StagePlan
from launcher.protocol import Outcome
from launcher.request import Prepared
from launcher.rundir import RunDirectory, writing
from launcher.supervisor import supervise

ShowResults = Callable[[Prepared], None]


def run_session(prepared: Prepared, show_results: ShowResults) -> int:
    """Starts or continues the run and watches it to its end. Returns the exit code; raises UserError before anything starts."""
    check_continuation(prepared)
    if is_finished(prepared):
        ending.write_lines([ending.finished_before_line(prepared.config.name)])
        show_results(prepared)
        return int(Exit.DONE)
    check_disk(prepared.plan)
    run = RunDirectory.create(prepared.run.path.parent, prepared.config.name)
    with run.lock() as note:
        notes = [text for text in (note, *start_notes(prepared)) if text]
        set_aside(run.path, prepared.plan.anew)
        write_run_files(prepared, run)
        outcome, view = _supervised(prepared, run, notes)
    ending.print_outcome(prepared.config.name, outcome, view)
    if outcome.state == "finished":
        show_results(prepared)
    return outcome.exit_code


def check_continuation(prepared: Prepared) -> None:
    """Refuses to go on with a run that the request does not fit. Raises ConfigError; deletes nothing, ever."""
    if not prepared.started_before:
        return
    name = prepared.config.name
    if prepared.request.resume == "never":
        raise ConfigError(
            f"run '{name}' is there already, and --resume never starts only new runs",
            f"choose another name: --name {name}-2, or go on with this one: ./run.sh resume {name}",
        )


def is_finished(prepared: Prepared) -> bool:
    """Every stage that was asked for is finished, none is trained anew, and no older checkpoint was asked for."""
    plan = prepared.plan
    return prepared.request.resume == "auto" and not plan.anew and all(stage.finished for stage in plan.stages)


def check_disk(plan: Plan) -> None:
    """Raises CannotWriteError when not even two checkpoints fit."""
    sizes = [stage.disk.checkpoint for stage in plan.stages if stage.disk]
    needed = 2 * max(sizes, default=0)
    if plan.disk_free_bytes and plan.disk_free_bytes < needed:
        raise CannotWriteError(
            f"{plan.run_dir}: {plan.disk_free_bytes / 1e9:.1f} GB is free, two checkpoints need {needed / 1e9:.1f} GB",
            "free space or choose another --runs-dir",
        )


def start_notes(prepared: Prepared) -> list[str]:
    """What differs from the run's earlier launches, and the plan's warnings."""
    notes = [*describe(prepared.plan.anew, [stage.name for stage in prepared.plan.stages]), *prepared.plan.warnings]
    earlier, plan = prepared.earlier, prepared.plan
    ranks = earlier.get("world_size")
    if isinstance(ranks, int) and ranks != plan.world_size:
        notes.append(
            f"{plan.world_size} ranks instead of {ranks}: the same samples in the same order, but not the same last bits"
        )
    recorded = read_json_object(prepared.run.versions) if prepared.started_before else None
    if recorded:
        changed = versions.differences(recorded, versions.collect(ROOT, plan.threads_per_rank, plan.world_size))
        if changed:
            notes.append(f"versions have changed since this run began: {', '.join(changed)}")
    return notes


def write_run_files(prepared: Prepared, run: RunDirectory) -> None:
    """config.yaml, plan.json and versions.json; those of a run's first launch keep its config and versions. Raises CannotWriteError."""
    plan = prepared.plan
    if prepared.old is not None:
        remember_removed(run.path, prepared.old, prepared.config)
    with writing(run.path):
        recorded = read_json_object(run.versions) if prepared.started_before else None
        known = recorded or versions.collect(ROOT, plan.threads_per_rank, plan.world_size) | {"config": plan.config}
        known["starts"] = {**known.get("starts", {}), **_starts(plan)}
        if prepared.resolved.provenance:
            write_atomic(run.config, dump_resolved(prepared.resolved).encode())
        write_json(run.versions, known)
        write_json(run.plan, plan.to_json())


def _starts(plan: Plan) -> dict[str, dict[str, str]]:
    """What each stage takes from other runs, and the fingerprint of the stage that made it."""
    return {
        stage.name: {
            "init": stage.init,
            "folder": stage.start_folder,
            "fingerprint": _fingerprint(Path(stage.start_folder)),
        }
        for stage in plan.stages
        if stage.start_folder
    }


def _fingerprint(folder: Path) -> str:
    """That of the stage whose result (STAGE/model) or step (STAGE/models/step-N) the folder is; empty when it is not finished."""
    stage = folder.parent.parent if folder.parent.name == "models" else folder.parent
    return str((read_json_object(stage / "done.json") or {}).get("fingerprint", ""))


def _supervised(prepared: Prepared, run: RunDirectory, notes: list[str]) -> tuple[Outcome, state.RunView]:
    observer = make_observer(first_view(prepared))
    for note in notes:
        observer.on_event({"type": "message", "level": "warning", "text": note})
    try:
        return supervise(prepared.plan.launch, run, observer, LocalTransport()), observer.state
    finally:
        with contextlib.suppress(OSError, ValueError):  # the run's own end counts, whatever has become of the terminal
            observer.close()


def first_view(prepared: Prepared) -> state.RunView:
    """What the console shows before the first event."""
    plan = prepared.plan
    header = state.Header(
        name=plan.name,
        config=plan.config,
        model=plan.model,
        world_size=plan.world_size,
        num_nodes=len(plan.launch.nodes),
        device=plan.device,
        threads=plan.threads_per_rank,
        amp=plan.amp,
    )
    views = tuple(_stage_view(prepared, stage) for stage in plan.stages)
    return state.start(header, views, time.time())


def _stage_view(prepared: Prepared, stage: StagePlan) -> state.StageView:
    steps = stage.steps
    view = state.StageView(
        stage.name,
        stage.task,
        group=stage.group,
        batch=stage.batch.text,
        total_steps=steps.total_steps or 0,
        steps_per_epoch=steps.steps_per_epoch or 0,
        num_examples=steps.num_examples or 0,
    )
    result = stage_result(prepared.run.path, stage.name) if stage.finished else None
    if result is None:
        return view
    step, seconds = int(result.get("step") or 0), float(result.get("seconds") or 0)
    return replace(view, status="done", step=step, seconds=seconds, metrics=result.get("metrics") or {})
