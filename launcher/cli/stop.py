"""`stop RUN`: asks a run to write a checkpoint and end, and waits for it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.rundir import RunDirectory

POLL_S = 0.2
CLEAN_UP_S = 30.0
DEFAULT_GRACE_S = 60.0


def stop(run: options.RunArgument, runs_dir: options.RunsDirOption = None) -> None:
    """Ask a run to write a checkpoint at its next step and end."""
    from configs.errors import Exit, UserError
    from launcher import places
    from launcher.console.ending import write_lines
    from launcher.rundir import RunDirectory

    directory = RunDirectory.open(places.runs_dir(runs_dir), run)
    supervisor = directory.supervisor()
    if supervisor is None:
        state = (directory.read_status() or {}).get("state", "new")
        raise UserError(f"run '{run}' is not running here (state: {state})", f"./run.sh status {run}")
    bound = _grace_s(directory) + CLEAN_UP_S
    write_lines([f"asking process {supervisor.pid} to stop: checkpoint at the next step (at most {bound:.0f} s)"])
    supervisor.send(signal.SIGTERM)
    deadline = time.monotonic() + bound
    while supervisor.alive() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if supervisor.alive():
        error = UserError(f"run '{run}' is still stopping after {bound:.0f} s", f"./run.sh status {run}")
        error.code = Exit.FAILED
        raise error
    write_lines(_last_words(directory))


def _grace_s(directory: RunDirectory) -> float:
    from launcher.files import read_json_object

    bounds = ((read_json_object(directory.plan) or {}).get("launch") or {}).get("bounds") or {}
    grace = bounds.get("stop_grace_s")
    return float(grace) if isinstance(grace, (int, float)) else DEFAULT_GRACE_S


def _last_words(directory: RunDirectory) -> list[str]:
    status = directory.read_status() or {}
    name, state = directory.path.name, status.get("state", "unknown")
    if state == "finished":
        return [f"run {name}: had just finished"]
    where = f" at step {status['step']}" if isinstance(status.get("step"), int) else ""
    return [f"run {name}: {state}{where}", f"next: ./run.sh resume {name}"]
