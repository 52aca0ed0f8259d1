"""Real trainings of a tiny model under the real supervisor and Paddle's launcher, for faults."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.environment_vars import rank_environment
from launcher.protocol import Outcome
from launcher.restart_policy import RestartPolicy
from launcher.rundir import RunDirectory
from launcher.spec import Bounds, LaunchSpec, NodeShape
from launcher.supervisor import supervise
from tests.launches import ROOT, Recorder
from tests.support.tiny import write_bert, write_tsv
from tests.support.training import make_run, untimed

STEPS = 24
PHASES = {
    "import": 120.0,
    "rendezvous": 60.0,
    "load": 60.0,
    "first_step": 60.0,
    "step": 8.0,
    "evaluate": 30.0,
    "save": 60.0,
}


def config(folder: Path) -> dict[str, Any]:
    """Dropout, accumulation, averaging; a checkpoint every 4 steps, an evaluation every 10."""
    write_bert(folder / "bert")
    write_tsv(folder / "table" / "train.tsv", 60, seed=1)
    write_tsv(folder / "table" / "test.tsv", 30, seed=2)
    stage = {"max_steps": STEPS, "batch": 7, "micro_batch": 2, "lr": 5e-3, "max_length": 24, "ema": 0.8}
    return {
        "model": str(folder / "bert"),
        "data": {"dataset": "tsv", "path": str(folder / "table"), "validation": 10},
        "stages": {"finetune": {**stage, "evaluate_every": 10}},
        "train": {"log_every": 3, "log_samples": True, "checkpoint_every": 4},
    }


def new_run(folder: Path, values: Mapping[str, Any], name: str) -> RunDirectory:
    """A prepared run directory."""
    return RunDirectory(make_run(folder / name, values, folder / "cache"))


def launch_spec(run: RunDirectory, *faults: str, **changes: Any) -> LaunchSpec:
    """Two ranks of the real worker with faults."""
    parts: dict[str, Any] = {
        "root": str(ROOT),
        "python": sys.executable,
        "run_dir": str(run.path),
        "nodes": (NodeShape(nproc=2),),
        "worker_args": tuple(part for fault in faults for part in ("--chaos", fault)),
        "stages": ("finetune",),
        "env": rank_environment(os.environ, {"MKL_DEBUG_CPU_TYPE": "5"}, str(ROOT), 1),
        "bounds": Bounds(startup_timeout_s=180, stop_grace_s=30, phases=PHASES),
        "restart": RestartPolicy("transient", 2, 0.2),
    }
    return LaunchSpec(**{**parts, **changes})


def train(run: RunDirectory, *faults: str, **changes: Any) -> tuple[Outcome, Recorder]:
    """Runs it to the end of its last attempt."""
    seen = Recorder()
    with run.lock():
        return supervise(launch_spec(run, *faults, **changes), run, seen), seen


def assert_same_result(run: RunDirectory, expected: RunDirectory) -> None:
    """Everything that does not tell the time is equal to the last bit."""
    ours, theirs = run.path / "finetune", expected.path / "finetune"
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert untimed(ours / name) == untimed(theirs / name), name
    for name in ("model/model.safetensors", "predictions.tsv", "eval.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
