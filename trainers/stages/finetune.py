"""A fine-tuning stage: labelled rows, classifier, evaluation on the validation and test splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from configs.schema import FinetuneStage
from trainers.engine.evaluation import predictions_table, report, score
from trainers.engine.files import replace_file, replace_json
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.model.config import BertConfig
from trainers.model.folder import build_model, save_folder
from trainers.stages import examine
from trainers.stages.labelled import LabelledData
from trainers.stages.starting_head import choose_head
from trainers.stages.work import StageContext
from trainers.tasks.finetune import FinetuneTask


class FinetuneWork:
    """A classifier on one data set."""

    predicted_share = 0.0
    has_idle_parameters = False

    def __init__(self, context: StageContext, stage: FinetuneStage) -> None:
        self._context = context
        self._stage = stage
        self._data_config = context.run.config.stage_data(context.name)
        self._data = LabelledData(context.facts, self._data_config, stage, context.vocabulary, context.seed)

    def make_task(self) -> FinetuneTask:
        return self._data.training_task(not self._context.run.ranks.is_gpu)

    def build_model(self, config: BertConfig) -> nn.Layer:
        return build_model(self._stage, config, len(self._data.label_names))

    def starting_head(self, folder: Path) -> str | None:
        return choose_head(folder, self._stage, self._data_config, self._data.label_names)

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        validation = self._data.rows("validation")
        if len(validation.rows) == 0:
            return None

        def evaluate() -> dict[str, Any]:
            num_classes = len(self._data.label_names)
            predictions = examine.predict(self._context, parts.model, validation, num_classes, "validation")
            return score(validation.labels, predictions.probabilities)

        return examine.make_evaluator(self._context, self._stage, parts.task.steps_per_epoch, progress, evaluate)

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        """Writes eval.json and predictions.tsv."""
        context, names = self._context, self._data.label_names
        if not self._data.has_test():
            return {}
        context.run.recorder.enter("evaluate")
        rows = self._data.rows("test")
        model = loop.parts.model
        predictions = loop.guard_stop(lambda: examine.predict(context, model, rows, len(names), "test"))
        result = report(rows.labels, predictions, names, self._data.majority_class())
        step = loop.progress.best_step or loop.progress.step
        if context.run.ranks.rank == 0:
            replace_json(context.directory / "eval.json", {"split": "test", "step": step, **result})
            table = predictions_table(rows.labels, predictions, names)
            replace_file(context.directory / "predictions.tsv", table.encode())
        scores = examine.main_scores(result)
        examine.record_scores(context, "test", step, scores, best=False)
        return scores

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        data = self._data
        save_folder(target, arrays, config, self._stage, self._context.source, data.label_names, pairs=data.has_pairs)
