"""Whether a start continues a run that is there: what is finished, and what has changed in its config since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.schema import Config
from launcher.files import read_json_object
from launcher.rundir import RunDirectory

HARMLESS = ("train.", "launch.startup_timeout_s", "launch.stop_grace_s", "launch.timeouts.", "launch.restart.")
"""Keys, or beginnings of keys, that change what a run records but never its result."""


def has_started(run: RunDirectory) -> bool:
    """Ranks of this run have been launched: its config is no longer free to change."""
    return bool(run.attempts()) or run.status.exists()


def has_work(run_dir: Path) -> bool:
    """Something was trained that a changed config would contradict: a checkpoint or a finished stage."""
    return any(run_dir.glob("*/checkpoints/step-*")) or any(run_dir.glob("*/done.json"))


def stage_result(run_dir: Path, stage: str) -> dict[str, Any] | None:
    """done.json of a stage; None while the stage is not finished."""
    return read_json_object(run_dir / stage / "done.json")


def finished_stages(run_dir: Path, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the stages that are finished."""
    return tuple(stage for stage in stages if stage_result(run_dir, stage) is not None)


def changed_keys(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Every value that differs, harmless ones left out: (dotted key, old, new)."""
    before, after = dict(_flatten(old.model_dump())), dict(_flatten(new.model_dump()))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        (key, before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key) and not key.startswith(HARMLESS)
    ]


def refuse_changes(run_name: str, old: Config, new: Config) -> None:
    """Raises ConfigError that lists what has changed since the run began; passes when nothing of weight has."""
    changes = changed_keys(old, new)
    if not changes:
        return
    rows = "\n".join(f"  {key}: {_shown(before)} -> {_shown(after)}" for key, before, after in changes)
    raise ConfigError(
        f"run '{run_name}' was started with another config:\n{rows}",
        f"./run.sh resume {run_name} (goes on as it was), or start anew under another name: --resume never --name NAME",
    )


def check_start(config: Config, run_dir: Path, stages: tuple[str, ...]) -> None:
    """Raises ConfigError when a stage would start from an earlier one that is neither finished nor among those to run."""
    for name in stages:
        init = config.stage_init(name)
        if init != "model" and init not in stages and stage_result(run_dir, init) is None:
            raise ConfigError(
                f"--stage {name}: it starts from stage '{init}', which run '{config.name}' has not finished",
                f"run all stages (without --stage), or --stage {init} first, or set stages.{name}.init=model",
            )


def choose_stages(config: Config, only: str | None) -> tuple[str, ...]:
    """All stages, or the one that is named. Raises ConfigError for an unknown name."""
    if only is None:
        return tuple(config.stages)
    if only not in config.stages:
        raise ConfigError(f"--stage {only}: no such stage; stages: {', '.join(config.stages)}", "--stage NAME")
    return (only,)


def checkpoint_stage(path: Path, run_dir: Path, stages: tuple[str, ...]) -> str:
    """The stage of a checkpoint directory (RUN/STAGE/checkpoints/step-N) of this run that a launch may start from. Raises ConfigError."""
    stage = path.parent.parent.name
    if not (path / "manifest.json").is_file():
        raise ConfigError(
            f"--resume {path}: not a checkpoint (no manifest.json in it)",
            "give auto, never, or a directory such as runs/NAME/STAGE/checkpoints/step-00000120",
        )
    if path.parent.parent.parent != run_dir:
        raise ConfigError(
            f"--resume {path}: not a checkpoint of run '{run_dir.name}' ({run_dir})",
            "go on with the run that it belongs to: --name NAME; or use a finished stage's weights: model=runs/NAME/STAGE/model",
        )
    if stage not in stages:
        raise ConfigError(
            f"--resume {path}: it belongs to stage '{stage}', which is not to run here ({', '.join(stages)})",
            "choose a checkpoint of one of these stages",
        )
    if stage_result(run_dir, stage) is not None:
        raise ConfigError(
            f"--resume {path}: stage '{stage}' is finished, and what came after it is built on its result",
            "train anew under another name: --resume never --name NAME",
        )
    return stage


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _shown(value: Any) -> str:
    if value is None:
        return "(not set)"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
