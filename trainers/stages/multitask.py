"""A multi-task stage: several labelled data sets on one encoder, evaluated each and as their mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from configs.mixing import batches_per_epoch
from configs.schema import MultitaskStage
from trainers.engine.evaluation import predictions_table, report, score
from trainers.engine.files import replace_file, replace_json
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.model.config import BertConfig
from trainers.model.folder import Head, build_multitask, save_folder
from trainers.model.heads import OneHead
from trainers.stages import examine
from trainers.stages.labelled import LabelledData, LabelledRows
from trainers.stages.work import StageContext
from trainers.tasks.multitask import MultitaskTask


class MultitaskWork:
    """A shared encoder with one classifier per data set."""

    predicted_share = 0.0
    has_idle_parameters = True

    def __init__(self, context: StageContext, stage: MultitaskStage) -> None:
        self._context = context
        self._stage = stage
        self._data = {
            name: LabelledData(context.facts["data_sets"][name], data, stage, context.vocabulary, context.seed)
            for name, data in stage.data_sets.items()
        }

    def make_task(self) -> MultitaskTask:
        noise = not self._context.run.ranks.is_gpu
        tasks = {name: data.training_task(noise) for name, data in self._data.items()}
        draws = batches_per_epoch(self._stage, {name: task.num_examples for name, task in tasks.items()})
        return MultitaskTask(tasks, draws, self._context.seed)

    def build_model(self, config: BertConfig) -> nn.Layer:
        return build_multitask(self._stage, config, {name: len(data.label_names) for name, data in self._data.items()})

    def starting_head(self, folder: Path) -> str | None:
        return None

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        """Data sets without validation rows have no part in it."""
        validation = {name: data.rows("validation") for name, data in self._data.items()}
        validation = {name: rows for name, rows in validation.items() if len(rows.rows)}
        if not validation:
            return None

        def evaluate() -> dict[str, Any]:
            scores = {}
            for name, rows in validation.items():
                predictions = self._predict(parts.model, name, rows, "validation")
                scores[name] = score(rows.labels, predictions.probabilities)
            return examine.over_data_sets(scores, examine.SCORES)

        return examine.make_evaluator(self._context, self._stage, parts.task.steps_per_epoch, progress, evaluate)

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        """Writes eval.json and a predictions-NAME.tsv per data set that has a test split."""
        context = self._context
        tested = {name: data.rows("test") for name, data in self._data.items() if data.has_test()}
        if not tested:
            return {}
        context.run.recorder.enter("evaluate")
        model = loop.parts.model
        predictions = loop.guard_stop(
            lambda: {name: self._predict(model, name, rows, "test") for name, rows in tested.items()}
        )
        reports, tables = {}, {}
        for name, rows in tested.items():
            data = self._data[name]
            reports[name] = report(rows.labels, predictions[name], data.label_names, data.majority_class())
            tables[name] = predictions_table(rows.labels, predictions[name], data.label_names)
        step = loop.progress.best_step or loop.progress.step
        if context.run.ranks.rank == 0:
            means = examine.over_data_sets(reports, (*examine.SCORES, *examine.MAJORITY))
            replace_json(context.directory / "eval.json", {"split": "test", "step": step, **means})
            for name, table in tables.items():
                replace_file(context.directory / f"predictions-{name}.tsv", table.encode())
        scores = examine.over_data_sets(
            {name: examine.main_scores(each) for name, each in reports.items()}, examine.SCORES
        )
        examine.record_scores(context, "test", step, scores, best=False)
        return scores

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        heads = {name: Head(data.label_names, data.has_pairs) for name, data in self._data.items()}
        save_folder(target, arrays, config, self._stage, self._context.source, (), heads)

    def _predict(self, model: Any, name: str, rows: LabelledRows, split: str) -> Any:
        num_classes = len(self._data[name].label_names)
        return examine.predict(self._context, OneHead(model, name), rows, num_classes, f"{name} {split}")
