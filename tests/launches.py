"""Real launches for tests: a run directory, a launch spec with a fake or the real Paddle launcher, and a search for
processes left behind."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.processes import ProcessId, marked
from launcher.environment_vars import rank_environment
from launcher.protocol import Outcome
from launcher.rundir import RunDirectory
from launcher.spec import ATTEMPT_VARIABLE, Bounds, LaunchSpec, NodeShape, NodeSpec
from launcher.supervisor import supervise

ROOT = Path(__file__).resolve().parent.parent
FAKES = ROOT / "tests" / "fakes"
QUICK = Bounds(startup_timeout_s=20, stop_grace_s=10, kill_grace_s=1, peer_grace_s=0.5, early_exit_s=0.5)


class FakeLaunch(LaunchSpec):
    """A launch whose `paddle.distributed.launch` is the fake."""

    def node_specs(self, attempt: int, run_id: str = "RUN_ID") -> tuple[NodeSpec, ...]:
        """As the base class, with another launcher and the first rank that it cannot work out."""
        specs = super().node_specs(attempt, run_id)
        return tuple(
            replace(
                spec,
                argv=(spec.argv[0], str(FAKES / "paddle_launch.py"), *spec.argv[3:]),
                env={**spec.env, "FAKE_FIRST_RANK": str(spec.first_rank)},
            )
            for spec in specs
        )


class Recorder:
    """An observer that keeps what it sees."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.ticks = 0

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Keeps the event."""
        self.events.append(event)

    def tick(self) -> None:
        """Counts."""
        self.ticks += 1

    def of_type(self, kind: str) -> list[Mapping[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event.get("type") == kind]


def fake_launch(run: RunDirectory, *worker_args: str, nodes: tuple[int, ...] = (2,), **changes: Any) -> LaunchSpec:
    """A launch of the fake worker."""
    defaults: dict[str, Any] = {
        "root": str(ROOT),
        "python": sys.executable,
        "run_dir": str(run.path),
        "nodes": tuple(NodeShape(nproc=nproc) for nproc in nodes),
        "worker": str(FAKES / "worker.py"),
        "worker_args": ("--stages", "finetune", *worker_args),
        "env": rank_environment(os.environ, {}, str(ROOT), 1),
        "bounds": QUICK,
    }
    return FakeLaunch(**{**defaults, **changes})


def launch(run: RunDirectory, *worker_args: str, **changes: Any) -> tuple[Outcome, Recorder]:
    """Runs the fake worker to its end."""
    recorder = Recorder()
    with run.lock():
        outcome = supervise(fake_launch(run, *worker_args, **changes), run, recorder)
    return outcome, recorder


def left_behind(run: RunDirectory) -> list[ProcessId]:
    """Processes of the run that are alive."""
    return [identity for identity, _ in marked(ATTEMPT_VARIABLE, f"{run.run_id()}/")]


def wait_until(condition: Any, timeout_s: float = 20.0) -> Any:
    """The first true value of `condition()`; fails after the bound."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain"
        time.sleep(0.02)
    return value
