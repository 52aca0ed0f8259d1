"""A fine-tuning stage: labelled rows, classifier, evaluation on the validation and test splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from configs.errors import DataError
from configs.schema import FinetuneStage
from trainers.data.split import select_rows, subset_rows
from trainers.data.store import open_texts
from trainers.engine.evaluation import predict_rows, predictions_table, report, score
from trainers.engine.files import replace_file, replace_json
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.model.config import BertConfig
from trainers.model.folder import build_model, save_folder
from trainers.stages.work import StageContext, labels_of
from trainers.tasks.finetune import FinetuneTask, TextEncoder


class FinetuneWork:
    """A classifier on one data set."""

    predicted_share = 0.0

    def __init__(self, context: StageContext, stage: FinetuneStage) -> None:
        self._context = context
        self._stage = stage
        self._label_names: tuple[str, ...] = tuple(context.facts["label_names"])
        self._validation_rows = np.zeros(0, dtype=np.int64)
        self._majority_class = 0

    def make_task(self) -> FinetuneTask:
        context, stage = self._context, self._stage
        data = context.run.config.stage_data(context.name)
        texts = open_texts(context.split("train"))
        if texts.labels is None:
            raise DataError(
                f"stage {context.name}: the training split has no labels", "name the label column in data.columns"
            )
        held_out = 0 if context.has_split("validation") else data.validation
        rows, self._validation_rows = select_rows(texts.labels, held_out, data.subset.train, context.seed)
        self._majority_class = int(np.bincount(texts.labels[rows], minlength=len(self._label_names)).argmax())
        encoder = TextEncoder(texts, context.vocabulary, stage)
        return FinetuneTask(encoder, rows, stage.batch, context.seed, not context.run.ranks.is_gpu)

    def build_model(self, config: BertConfig) -> nn.Layer:
        return build_model(self._stage, config, len(self._label_names))

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        context, stage = self._context, self._stage
        own_split = context.has_split("validation")
        texts = open_texts(context.split("validation" if own_split else "train"))
        rows = np.arange(len(texts), dtype=np.int64) if own_split else self._validation_rows
        if len(rows) == 0:
            return None
        encoder = TextEncoder(texts, context.vocabulary, stage)

        def evaluate() -> dict[str, float]:
            predictions = self._predict(parts.model, encoder, rows, "validation")
            return score(labels_of(texts.labels, rows), predictions.probabilities)

        def note(metrics: dict[str, float]) -> bool:
            best = progress.take_evaluation(metrics, stage.best_metric, stage.early_stopping)
            self._record("validation", progress.step, metrics, best)
            return best

        every = parts.task.steps_per_epoch if stage.evaluate_every == "epoch" else stage.evaluate_every
        return Evaluator(every, evaluate, note)

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        """Writes eval.json and predictions.tsv."""
        context = self._context
        if not context.has_split("test"):
            return {}
        context.run.recorder.enter("evaluate")
        texts = open_texts(context.split("test"))
        rows = np.arange(len(texts), dtype=np.int64)
        subset = context.run.config.stage_data(context.name).subset.test
        if subset is not None:
            rows = subset_rows(labels_of(texts.labels, rows), subset, context.seed)
        encoder = TextEncoder(texts, context.vocabulary, self._stage)
        predictions = loop.guard_stop(lambda: self._predict(loop.parts.model, encoder, rows, "test"))
        labels = labels_of(texts.labels, rows)
        result = report(labels, predictions, self._label_names, self._majority_class)
        scores = {key: result[key] for key in ("accuracy", "macro_f1", "error_rate", "loss", "n")}
        if context.run.ranks.rank == 0:
            step = loop.progress.best_step or loop.progress.step
            replace_json(context.directory / "eval.json", {"split": "test", "step": step, **result})
            table = predictions_table(labels, predictions, self._label_names)
            replace_file(context.directory / "predictions.tsv", table.encode())
        self._record("test", loop.progress.best_step or loop.progress.step, scores, best=False)
        return scores

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        save_folder(target, arrays, config, self._stage, self._context.source, self._label_names)

    def _predict(self, model: Any, encoder: TextEncoder, rows: np.ndarray, split: str) -> Any:
        run = self._context.run
        return predict_rows(
            model, encoder, rows, len(self._label_names), run.policy, run.ranks, run.recorder, split, run.stop_requested
        )

    def _record(self, split: str, step: int, metrics: dict[str, Any], best: bool) -> None:
        run = self._context.run
        if run.ranks.rank == 0:
            run.recorder.record("eval", stage=self._context.name, split=split, step=step, metrics=metrics, best=best)
