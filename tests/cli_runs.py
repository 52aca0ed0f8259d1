"""Real command lines for tests, and run directories made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster.processes import ProcessId, boot_id

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 120
CONFIG = """\
name: tiny
model: all-minilm-l6-v2
data: {dataset: tsv, path: DATA, validation: 4, files: {train: train.tsv, test: test.tsv}}
stages:
  finetune: {epochs: 1, batch: 8, max_length: 16, layer_decay: 0.9}
"""


def launcher(*arguments: str, runs_dir: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m launcher` as a person would, from outside the source tree."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BERT4DOC_RUNS": str(runs_dir), "COLUMNS": "100", **environment}
    command = [sys.executable, "-m", "launcher", *arguments]
    return subprocess.run(
        command, cwd=runs_dir, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
    )


def write_config(folder: Path, text: str = CONFIG) -> Path:
    """A config over 24 training and 8 test rows of two easy classes."""
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", 24), ("test", 8)):
        lines = [f"{('a good day', 'a bad night')[i % 2]} number {i}\t{('plus', 'minus')[i % 2]}" for i in range(rows)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    path = folder / "tiny.yaml"
    path.write_text(text.replace("DATA", str(folder)))
    return path


def make_run(runs_dir: Path, name: str, state: str, process: ProcessId | None = None, **status: Any) -> Path:
    """A run directory with a status, a plan with one stage, and one attempt with two ranks' logs."""
    run = runs_dir / name
    node = run / "attempts" / "000" / "node-0"
    node.mkdir(parents=True)
    for rank in (0, 1):
        (node / f"rank-{rank}.log").write_bytes(
            f"rank {rank} begins\nrank {rank} caf\u00e9\n".encode() + b"\xff broken\n"
        )
    known = {"stage": "finetune", "step": 120, "total_steps": 456, "attempt": 0, "t": time.time(), "boot": boot_id()}
    identity = {"pid": process.pid, "start": process.start} if process else {"pid": 2**22 + 1, "start": 1}
    write_json(
        run / "status.json", {"state": state, **known, **identity, "root_cause": None, "exit_code": None, **status}
    )
    write_json(run / "plan.json", {"stages": [{"name": "finetune"}], "launch": {"bounds": {"stop_grace_s": 5}}})
    return run


def write_json(path: Path, value: Any) -> None:
    """One JSON file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
