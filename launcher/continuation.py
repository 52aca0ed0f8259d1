"""Whether a start continues a run that is there: what is finished, what a stage starts from, which checkpoint is meant."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from configs.errors import ConfigError
from configs.inits import Init
from configs.schema import Config
from configs.starts import find_start, models_beside
from launcher.anew import stage_result
from launcher.rundir import RunDirectory


def has_started(run: RunDirectory) -> bool:
    """Ranks of this run have been launched: its config is no longer free to change."""
    return bool(run.attempts()) or run.status.exists()


def has_work(run_dir: Path) -> bool:
    """Something was trained that a changed config would contradict: a checkpoint or a finished stage."""
    return any(run_dir.glob("*/checkpoints/step-*")) or any(run_dir.glob("*/done.json"))


def finished_stages(run_dir: Path, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the stages that are finished."""
    return tuple(stage for stage in stages if stage_result(run_dir, stage) is not None)


def find_starts(
    config: Config, run_dir: Path, stages: tuple[str, ...], finished: tuple[str, ...], anew: Collection[str] = ()
) -> dict[str, Path]:
    """The folders of other runs that stages to run start from. anew: the stages whose results will be set aside.

    Raises ConfigError when a stage could not start: what it starts from is neither there nor made before it.
    """
    folders = {}
    for name in (each for each in stages if each not in finished):
        start = config.stage_start(name)
        if start.run is not None:
            folders[name] = find_start(start, run_dir.parent, f"stages.{name}.init")
        elif start.stage is not None and (start.stage not in stages or start.stage in finished):
            if start.stage in anew:
                raise _start_set_aside(name, start.stage)
            _check_start(config, run_dir, name, start)
    return folders


def _start_set_aside(name: str, start: str) -> ConfigError:
    return ConfigError(
        f"--stage {name}: it starts from stage '{start}', which would be trained anew (--rerun, or other settings), but not in this launch",
        f"run all stages (without --stage), or --stage {start} first; or take the changed values back",
    )


def _check_start(config: Config, run_dir: Path, name: str, start: Init) -> None:
    """start: a stage of this run that is not made in this launch."""
    done = stage_result(run_dir, str(start.stage)) is not None
    if (done and start.step is None) or (start.step and (run_dir / start.folder / "model.safetensors").is_file()):
        return
    if done:
        raise ConfigError(
            f"stages.{name}.init: stage '{start.stage}' is finished and kept no model at step {start.step}"
            f"{models_beside(run_dir / start.folder)}",
            f"choose another step, or train it again with save_model_every: --rerun {start.stage}",
        )
    raise ConfigError(
        f"--stage {name}: it starts from stage '{start.stage}', which run '{config.name}' has not finished",
        f"run all stages (without --stage), or --stage {start.stage} first, or set stages.{name}.init=model",
    )


def choose_stages(config: Config, only: str | None, option: str = "--stage") -> tuple[str, ...]:
    """All stages, or those that are named: one, a group, or all that a stage was swept to. Raises ConfigError for an unknown
    name."""
    if only is None:
        return tuple(config.stages)
    if only in config.stages:
        return (only,)
    members = tuple(name for name, stage in config.stages.items() if only in (stage.group, stage.swept_from))
    if members:
        return members
    groups = dict.fromkeys(stage.group for stage in config.stages.values() if stage.group)
    names = ", ".join([*list(config.stages)[:12], *(["..."] if len(config.stages) > 12 else [])])
    known = f"stages: {names}" + (f"; groups: {', '.join(map(str, groups))}" if groups else "")
    raise ConfigError(f"{option} {only}: no such stage; {known}", f"{option} NAME")


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
