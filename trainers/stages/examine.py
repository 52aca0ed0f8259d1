"""What stages with classifiers share: predictions of chosen rows, evaluation during training, scores of several data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.schema import ClassifierStage
from trainers.engine.evaluation import Predictions, predict_rows
from trainers.engine.loop import Evaluator
from trainers.engine.progress import Progress
from trainers.stages.labelled import LabelledRows
from trainers.stages.work import StageContext

MAJORITY = ("majority_accuracy", "majority_macro_f1")
SCORES = ("accuracy", "macro_f1", "error_rate", "loss", "n")


def predict(context: StageContext, model: Any, rows: LabelledRows, num_classes: int, split: str) -> Predictions:
    """Class probabilities of rows, the same on every rank; `split` is what the screen calls them. Raises StopAgreed."""
    run = context.run
    return predict_rows(
        model, rows.encoder, rows.rows, num_classes, run.policy, run.ranks, run.recorder, split, run.stop_requested
    )


def make_evaluator(
    context: StageContext,
    stage: ClassifierStage,
    steps_per_epoch: int,
    progress: Progress,
    evaluate: Callable[[], dict[str, Any]],
) -> Evaluator:
    """Evaluation as the stage's config asks for it; `evaluate` gives the metrics."""

    def note(metrics: dict[str, Any]) -> bool:
        best = progress.take_evaluation(metrics, stage.best_metric, stage.early_stopping)
        record_scores(context, "validation", progress.step, metrics, best)
        return best

    every = steps_per_epoch if stage.evaluate_every == "epoch" else stage.evaluate_every
    return Evaluator(every, evaluate, note)


def record_scores(context: StageContext, split: str, step: int, metrics: Mapping[str, Any], best: bool) -> None:
    """Tell the outside about an evaluation, from rank 0."""
    run = context.run
    if run.ranks.rank == 0:
        run.recorder.record("eval", stage=context.name, split=split, step=step, metrics=dict(metrics), best=best)


def main_scores(report: Mapping[str, Any]) -> dict[str, Any]:
    """The single figures of a report."""
    return {key: report[key] for key in SCORES}


def over_data_sets(scores: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> dict[str, Any]:
    """The plain mean of each figure over data sets (`n`: the sum), and below `data_sets` those of each."""
    means = {key: sum(each[key] for each in scores.values()) / len(scores) for key in keys if key != "n"}
    return {
        **means,
        "n": sum(each["n"] for each in scores.values()),
        "data_sets": {name: dict(each) for name, each in scores.items()},
    }
