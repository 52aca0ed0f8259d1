"""Runs a program of the trainers on a run's results, with the terminal as it is: stdin, stdout and stderr are passed through."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from configs.errors import ConfigError
from configs.loader import load_resolved
from launcher import continuation, facts, places
from launcher.environment_vars import rank_environment
from launcher.rundir import RunDirectory


def run_module(module: str, run: str, runs_dir: Path | None, arguments: tuple[str, ...]) -> NoReturn:
    """Replaces this process by `python -m MODULE --run-dir R ...`. Raises ConfigError when no stage of the run is finished."""
    directory = RunDirectory.open(places.runs_dir(runs_dir), run)
    config = load_resolved(directory.config) if directory.config.is_file() else None
    if config is None or not continuation.finished_stages(directory.path, tuple(config.stages)):
        raise ConfigError(f"run '{run}': no stage is finished yet", f"./run.sh status {run}")
    command = [sys.executable, "-m", module, "--run-dir", str(directory.path), *arguments]
    environment = rank_environment(os.environ, config.launch.env, str(places.ROOT), facts.count_cores())
    # Paddle warns on every start when this is above 1; without it OpenMP takes all cores by itself.
    environment.pop("OMP_NUM_THREADS", None)
    environment["PYTHONWARNINGS"] = "ignore"  # what libraries say to developers is not for the reader of a prediction
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - an argv list on purpose, no shell
