"""What the runner asks of a kind of stage, and what every kind is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from paddle import nn

from configs.schema import Config
from trainers.data.vocabulary import Vocabulary
from trainers.engine.amp import AmpPolicy
from trainers.engine.chaos import Chaos
from trainers.engine.loop import Evaluator, Parts, TrainingLoop
from trainers.engine.progress import Progress
from trainers.engine.ranks import Ranks
from trainers.engine.records import Recorder
from trainers.model.config import BertConfig
from trainers.model.folder import ModelSource
from trainers.tasks.base import Task


@dataclass(frozen=True)
class Run:
    """What all stages of a run share on one rank."""

    directory: Path
    config: Config
    prepared: Mapping[str, Any]
    """Contents of prepared.json."""
    ranks: Ranks
    policy: AmpPolicy
    recorder: Recorder
    stop_requested: Callable[[], bool]
    chaos: Chaos
    resume_from: Path | None
    """A checkpoint directory named by the user, for the stage it belongs to; None: the newest intact one."""


@dataclass(frozen=True)
class StageContext:
    """One stage of a run."""

    run: Run
    name: str
    facts: Mapping[str, Any]
    """This stage's part of prepared.json."""
    directory: Path
    source: ModelSource
    vocabulary: Vocabulary

    @property
    def seed(self) -> int:
        """Seed of everything random in the stage."""
        return self.run.config.stage_seed(self.name)

    def split(self, name: str) -> Path:
        """The cache entry of a prepared split."""
        return Path(self.facts["splits"][name])


class StageWork(Protocol):
    """What is particular to one kind of stage: its task, model, evaluation and result."""

    predicted_share: float
    """Share of the tokens whose vocabulary logits are computed: for the estimate of arithmetic."""

    has_idle_parameters: bool
    """Whether some parameters take part in some steps only."""

    def make_task(self) -> Task:
        """Order, batches and losses."""

    def build_model(self, config: BertConfig) -> nn.Layer:
        """The model, randomly initialised from Paddle's generator."""

    def starting_head(self, folder: Path) -> str | None:
        """The data set of the multi-task model in `folder` whose classifier the stage starts with; None for no such classifier."""

    def make_evaluator(self, parts: Parts, progress: Progress) -> Evaluator | None:
        """Evaluation during training; None when there is nothing to evaluate on."""

    def test(self, loop: TrainingLoop) -> dict[str, Any]:
        """Evaluate the finished model and write the reports; returns the main scores, none where there is nothing to test on."""

    def save_model(self, target: Path, arrays: Mapping[str, np.ndarray], config: BertConfig) -> None:
        """Write a model folder of weights under our names. Raises CannotWriteError."""
