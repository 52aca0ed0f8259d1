"""trainers/worker.py with what --chaos does not offer, named in TEST_SEAMS:

stop:SPLIT:N              the stop file appears while batch N (1-based) of a split's evaluations is computed
slow:SECONDS              every step takes longer, so that a test can hit it
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def stop_in_evaluation(split: str, number: int) -> None:
    """Create the stop file in the middle of an evaluation."""
    from trainers.engine import evaluation

    stage: Any = importlib.import_module("trainers.stages.examine")

    attempt = Path(sys.argv[sys.argv.index("--attempt-dir") + 1])
    current, seen = [""], [0]
    seam: Any = stage
    predict_rows, predict_batch = seam.predict_rows, evaluation.predict_batch

    def rows(*arguments: Any) -> Any:
        current[0] = arguments[7].split()[-1]  # "validation", or "NAME validation" of a multi-task stage
        return predict_rows(*arguments)

    def batch(*arguments: Any) -> Any:
        seen[0] += current[0] == split
        if seen[0] == number and current[0] == split and os.environ["PADDLE_TRAINER_ID"] == "0":
            (attempt / "stop").write_text("test")
        return predict_batch(*arguments)

    seam.predict_rows = rows
    evaluation.predict_batch = batch


def slow(seconds: float) -> None:
    from trainers.engine import loop

    original = loop.TrainingLoop._step

    def step(self: Any) -> None:
        time.sleep(seconds)
        original(self)

    loop.TrainingLoop._step = step  # type: ignore[method-assign]


def install(seam: str) -> None:
    kind, _, rest = seam.partition(":")
    if kind == "stop":
        split, _, number = rest.partition(":")
        stop_in_evaluation(split, int(number))
    elif kind == "slow":
        slow(float(rest))
    else:
        raise SystemExit(f"unknown seam {seam}")


if __name__ == "__main__":
    import paddle  # noqa: F401  before the worker installs its signal handlers

    for each in os.environ["TEST_SEAMS"].split():
        install(each)
    runpy.run_path(str(ROOT / "trainers" / "worker.py"), run_name="__main__")
