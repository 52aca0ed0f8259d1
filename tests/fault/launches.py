"""Launches of ranks without Paddle that meet, save and resume (tests/fakes/meeting_worker.py), under the real supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from launcher.protocol import Outcome
from launcher.restart_policy import RestartPolicy
from launcher.rundir import RunDirectory
from launcher.spec import LaunchSpec
from launcher.supervisor import supervise
from tests.launches import FAKES, QUICK, ROOT, Recorder, fake_launch

WORKER = str(FAKES / "meeting_worker.py")
TRANSIENT = RestartPolicy("transient", max_without_progress=2, backoff_s=0.05)


def meeting_launch(
    run: RunDirectory, *worker_args: str, phases: Mapping[str, float] | None = None, **changes: Any
) -> LaunchSpec:
    """A launch of two ranks; `phases` are the watchdog's bounds."""
    values = {"restart": TRANSIENT, **changes, "worker": WORKER, "worker_args": worker_args, "stages": ("finetune",)}
    return fake_launch(run, **{"bounds": replace(QUICK, phases=phases or {}), **values})


def meet(run: RunDirectory, *worker_args: str, **changes: Any) -> tuple[Outcome, Recorder]:
    """Runs them to the end of the last attempt."""
    seen = Recorder()
    with run.lock():
        return supervise(meeting_launch(run, *worker_args, **changes), run, seen), seen


def meet_apart(run: RunDirectory, call: str) -> subprocess.Popen[bytes]:
    """The same in a supervisor of its own, which can be signalled: `call` are the arguments of `meet` after the run."""
    code = (
        "import sys; from pathlib import Path; from launcher.rundir import RunDirectory; from tests.fault.launches import *\n"
        f"sys.exit(meet(RunDirectory(Path(sys.argv[1])), {call})[0].exit_code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, env=env)
