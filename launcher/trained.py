"""Runs a program of the trainers on results and models, with the terminal as it is: stdin, stdout and stderr are passed through."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from configs.errors import ConfigError
from configs.loader import load_resolved
from launcher import continuation, facts, places
from launcher.environment_vars import rank_environment
from launcher.rundir import RunDirectory

PROGRAM = "trainers.program"
"""Runs a module so that a signal ends it without a traceback."""


def run_module(module: str, run: str, runs_dir: Path | None, arguments: tuple[str, ...]) -> NoReturn:
    """Replaces this process by `trainers.program MODULE --run-dir R ...`. Raises ConfigError when no stage of the run is finished."""
    directory = RunDirectory.open(places.runs_dir(runs_dir), run)
    config = load_resolved(directory.config) if directory.config.is_file() else None
    if config is None or not continuation.finished_stages(directory.path, tuple(config.stages)):
        raise ConfigError(f"run '{run}': no stage is finished yet", f"./run.sh status {run}")
    exec_module(PROGRAM, (module, "--run-dir", str(directory.path), *arguments), config.launch.env)


def run_module_on(
    module: str, run_or_folder: str, stage: str | None, runs_dir: Path | None, arguments: tuple[str, ...]
) -> NoReturn:
    """`run_module` for a run, or `trainers.program MODULE --model FOLDER ...` for the folder of a model. Raises ConfigError."""
    folder = model_folder(run_or_folder)
    if folder is None:
        beside = Path(run_or_folder) / "config.json"
        if beside.is_file() and not (places.runs_dir(runs_dir) / run_or_folder).is_dir():
            raise ConfigError(
                f"run '{run_or_folder}': not found in {places.runs_dir(runs_dir)}; a folder is given as a path, with a /",
                f"did you mean ./{run_or_folder}?",
            )
        chosen = ("--stage", stage) if stage else ()
        run_module(module, run_or_folder, runs_dir, (*chosen, *arguments))
    if stage is not None:
        raise ConfigError(f"--stage {stage}: {folder} is one model, not a run", "leave --stage out")
    exec_module(PROGRAM, (module, "--model", str(folder.absolute()), *arguments), {})


def model_folder(run_or_folder: str) -> Path | None:
    """The folder when a path is given (it holds a `/`); None for the name of a run. ConfigError when it is no model."""
    if os.sep not in run_or_folder and run_or_folder != ".":
        return None
    folder = Path(run_or_folder).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{run_or_folder}: no folder of a model", "name a run (./run.sh runs) or a folder with config.json"
        )
    return folder


def exec_module(module: str, arguments: tuple[str, ...], extra: Mapping[str, str]) -> NoReturn:
    """Replaces this process by `python -m MODULE ...` in the environment of a rank; `extra` is the config's launch.env."""
    environment = rank_environment(os.environ, extra, str(places.ROOT), facts.count_cores())
    # Paddle warns on every start when this is above 1; without it OpenMP takes all cores by itself.
    environment.pop("OMP_NUM_THREADS", None)
    environment["PYTHONWARNINGS"] = "ignore"  # what libraries say to developers is not for the reader of a prediction
    environment.setdefault("GLOG_minloglevel", "2")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)  # noqa: S606 - an argv list, no shell
