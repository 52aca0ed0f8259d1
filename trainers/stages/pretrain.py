"""A further pre-training stage: corpora, model, evaluation on held-out documents, result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from configs.schema import PretrainStage
from trainers.data.pretraining import open_sources
from trainers.engine.files import replace_json
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.engine.reading import score_held_out
from trainers.model.config import BertConfig
from trainers.model.folder import build_model, save_folder
from trainers.stages.work import StageContext
from trainers.tasks.pretrain import PretrainTask

SPLIT = "validation"


class PretrainWork:
    """Masked language model, with or without next-sentence prediction."""

    has_idle_parameters = False

    def __init__(self, context: StageContext, stage: PretrainStage) -> None:
        self._context = context
        self._stage = stage
        self._sources = open_sources(context.name, stage, context.facts["corpora"], context.vocabulary, context.seed)
        self._last: tuple[int, dict[str, float]] | None = None
        self.predicted_share = self._sources.predicted_share

    def make_task(self) -> PretrainTask:
        context, stage = self._context, self._stage
        per_sequence_noise = not context.run.ranks.is_gpu
        return PretrainTask(self._sources.training, stage.nsp, stage.batch, context.seed, per_sequence_noise)

    def build_model(self, config: BertConfig) -> nn.Layer:
        return build_model(self._stage, config, 0)

    def starting_head(self, folder: Path) -> str | None:
        return None

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        if self._sources.held_out is None:
            return None
        # always the same pairs and masks: those of the first epoch
        instances = self._sources.held_out.epoch(0)

        def evaluate() -> dict[str, float]:
            run = self._context.run
            return score_held_out(
                parts.model, instances, self._stage.nsp, run.policy, run.ranks, run.recorder, SPLIT, run.stop_requested
            )

        def note(metrics: dict[str, float]) -> bool:
            progress.evaluated_step = progress.step
            self._last = (progress.step, metrics)
            run = self._context.run
            if run.ranks.rank == 0:
                run.recorder.record(
                    "eval", stage=self._context.name, split=SPLIT, step=progress.step, metrics=metrics, best=False
                )
            return False

        every = self._stage.evaluate_every
        return Evaluator(parts.task.steps_per_epoch if every == "epoch" else every, evaluate, note)

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        """Writes eval.json: the held-out documents under the final weights, which the loop has evaluated last."""
        evaluator, step = loop.evaluator, loop.progress.step
        if evaluator is None:
            return {}
        if self._last is None or self._last[0] != step:  # resumed after the last evaluation
            self._context.run.recorder.enter("evaluate")
            self._last = (step, loop.guard_stop(evaluator.run))
        metrics = self._last[1]
        if self._context.run.ranks.rank == 0:
            replace_json(self._context.directory / "eval.json", {"split": SPLIT, "step": step, **metrics})
        return metrics

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        save_folder(target, arrays, config, self._stage, self._context.source, ())
