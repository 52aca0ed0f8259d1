"""What a run has achieved, read from its directory, as rows for tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.console import metrics, text
from launcher.files import read_json_object
from launcher.request import stages_of
from launcher.rundir import RunDirectory
from launcher.spread import Spread, spread

FIGURES = ("accuracy", "macro_f1", "error_rate", "loss", "n")
"""Of an evaluation; error_rate in percent."""


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

    @property
    def split(self) -> str:
        """The split that the figures are of: test, else validation; empty for a stage without evaluation."""
        if self.evaluation:
            return str(self.evaluation.get("split", "test"))
        return "validation" if "validation_accuracy" in (self.done.get("metrics") or {}) else ""

    def figure(self, name: str) -> float | None:
        """One of FIGURES on the test split, else on the validation split; None where there is none."""
        source: Mapping[str, Any] = self.evaluation
        if not source:
            validation = self.done.get("metrics") or {}
            source = {key: validation.get(f"validation_{key}") for key in FIGURES}
        value = source.get(name)
        return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True)
class Group:
    """Stages that are summed up together."""

    name: str
    members: tuple[str, ...]
    repeated: bool
    """They differ in nothing but seed or fold: mean and deviation are those of one experiment."""
    results: tuple[StageResult, ...]
    """Of the members that have any."""

    def spread(self, figure: str) -> Spread | None:
        """The summary of one figure over the members that have it."""
        return spread([value for result in self.results if (value := result.figure(figure)) is not None])

    def label(self, member: str) -> str:
        """What tells a member from the others: `seed1`."""
        return member.removeprefix(f"{self.name}-")

    def to_json(self) -> dict[str, Any]:
        """The group as JSON values: error_rate in percent, accuracy and macro_f1 as shares."""
        return {
            "group": self.name,
            "members": list(self.members),
            "finished": [result.stage for result in self.results],
            "repeated": self.repeated,
            **{figure: _spread_json(self.spread(figure)) for figure in FIGURES if figure != "n"},
        }


def make_groups(
    group_of: Mapping[str, str | None], repeated: Collection[str], results: Sequence[StageResult]
) -> tuple[Group, ...]:
    """The groups of more than one stage. group_of: the group of every stage, in order."""
    members: dict[str, list[str]] = {}
    for stage, group in group_of.items():
        if group is not None:
            members.setdefault(group, []).append(stage)
    return tuple(
        Group(name, tuple(stages), name in repeated, tuple(each for each in results if each.stage in stages))
        for name, stages in members.items()
        if len(stages) > 1
    )


def _spread_json(found: Spread | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"n": found.n, "mean": found.mean, "sd": found.sd, "min": found.least, "max": found.greatest}


def stages_with_results(run: RunDirectory) -> tuple[str, ...]:
    """The stages of the newest launch, after those that only earlier ones have finished."""
    planned = stages_of(run)
    finished = sorted(path.parent.name for path in run.path.glob("*/done.json"))
    return (*(name for name in finished if name not in planned), *planned)


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
