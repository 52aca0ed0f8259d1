"""A further pre-training stage: corpus, model and result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from configs.schema import PretrainStage
from trainers.data.store import open_corpus
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.model.config import BertConfig
from trainers.model.folder import build_model, save_folder
from trainers.stages.work import StageContext
from trainers.tasks.pretrain import PretrainTask


class PretrainWork:
    """Masked language model, with or without next-sentence prediction."""

    def __init__(self, context: StageContext, stage: PretrainStage) -> None:
        self._context = context
        self._stage = stage
        self.predicted_share = stage.mask_probability

    def make_task(self) -> PretrainTask:
        context = self._context
        corpus = open_corpus(context.split("corpus"))
        return PretrainTask(corpus, context.vocabulary, self._stage, context.seed, not context.run.ranks.is_gpu)

    def build_model(self, config: BertConfig) -> nn.Layer:
        return build_model(self._stage, config, 0)

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        return None

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        return {}

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        save_folder(target, arrays, config, self._stage, self._context.source, ())
