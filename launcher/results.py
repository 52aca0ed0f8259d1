"""What a run has achieved, read from its directory, as rows for tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.console import metrics, text
from launcher.files import read_json_object

SHOWN = ("accuracy", "macro_f1", "error_rate", "loss")


@dataclass(frozen=True)
class StageResult:
    """What one finished or evaluated stage left behind."""

    stage: str
    done: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def seconds(self) -> float | None:
        """Training time of the stage, all launches together."""
        value = self.done.get("seconds")
        return float(value) if isinstance(value, (int, float)) else None


def read_results(run_dir: Path, stages: tuple[str, ...]) -> list[StageResult]:
    """Results of the stages that have any."""
    found = []
    for stage in stages:
        done = read_json_object(run_dir / stage / "done.json")
        evaluation = read_json_object(run_dir / stage / "eval.json")
        if done is not None or evaluation is not None:
            found.append(StageResult(stage, done or {}, evaluation or {}))
    return found


def result_rows(results: list[StageResult]) -> list[tuple[str, str, str, str]]:
    """(stage, metric, value, time) per figure; stage and time stand in the first row of a stage only."""
    rows = []
    for result in results:
        split = result.evaluation.get("split", "test")
        pairs = [(f"{split} {label}", value) for label, value in metrics.evaluation_pairs(result.evaluation)]
        if not pairs:
            pairs = metrics.evaluation_pairs(result.done.get("metrics") or {}) or [("finished", "yes")]
        for position, (label, value) in enumerate(pairs):
            first = position == 0
            rows.append((result.stage if first else "", label, value, text.duration(result.seconds) if first else ""))
    return rows


def comparison_rows(results: list[StageResult], names: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(what, accuracy, macro-F1): the majority class, then each named stage that was evaluated."""
    evaluated = {result.stage: result.evaluation for result in results if "accuracy" in result.evaluation}
    rows = []
    for evaluation in list(evaluated.values())[:1]:
        rows.append(_row("majority class", evaluation.get("majority_accuracy"), evaluation.get("majority_macro_f1")))
    for stage, label in names.items():
        if stage in evaluated:
            rows.append(_row(label, evaluated[stage].get("accuracy"), evaluated[stage].get("macro_f1")))
    return rows


def _row(label: str, accuracy: Any, macro_f1: Any) -> tuple[str, str, str]:
    cells = [text.percent(value) if isinstance(value, (int, float)) else "-" for value in (accuracy, macro_f1)]
    return (label, cells[0], cells[1])
