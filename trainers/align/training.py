"""The real training loop, stepped by hand: gradients before clipping, losses, norms, weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from configs.schema import FinetuneStage, PretrainStage, TrainConfig
from trainers.align import settings
from trainers.engine.amp import AmpPolicy
from trainers.engine.chaos import NoChaos
from trainers.engine.checkpoint import CheckpointStore
from trainers.engine.loop import Parts, TrainingLoop
from trainers.engine.metrics_log import StepLog
from trainers.engine.progress import Progress
from trainers.engine.records import Recorder
from trainers.model.weights import to_hf_arrays
from trainers.optim.adamw import make_adamw
from trainers.optim.groups import freeze_others, make_groups
from trainers.optim.schedule import make_schedule
from trainers.tasks.base import Task
from trainers.trained import alone

Arrays = dict[str, np.ndarray]


class OpenLoop(TrainingLoop):
    """The training loop with a view of what passes through it."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.first_gradients: Arrays = {}
        self.norms: list[float] = []
        self.losses: list[list[float]] = []

    def advance(self) -> None:
        """One optimizer step."""
        self._step()

    def _forward_backward(self, step: int, batches: Any, counts: np.ndarray, factor: float) -> paddle.Tensor:
        shares = super()._forward_backward(step, batches, counts, factor)
        self.losses.append(shares.tolist())
        if step == 0:
            self.first_gradients = {name: p.grad.numpy() for name, p in self.parameters.items() if p.grad is not None}
        return shares

    def _update(self, step: int, blame: Callable[[], str]) -> None:
        super()._update(step, blame)
        self.norms.append(self._grad_norm)


def train(model: Any, task: Task, stage: FinetuneStage | PretrainStage) -> Arrays:
    """Losses and norms of TRAINED_STEPS steps, gradients of the first, weights after the compared ones,
    frozen weights at the end; changes the model."""
    with tempfile.TemporaryDirectory(prefix="bert4doc-align-") as directory:
        loop = _make_loop(Path(directory), model, task, stage)
        results: Arrays = {}
        for step in range(1, settings.TRAINED_STEPS + 1):
            loop.advance()
            if step in settings.compared_steps(stage):
                results |= _weights(f"weights {step}", loop, trainable=True)
    results |= _weights("frozen", loop, trainable=False)
    gradients = to_hf_arrays(loop.first_gradients)
    results |= {f"gradients/{name}": array for name, array in gradients.items()}
    losses = np.array(loop.losses)
    results |= {f"loss/{term}": losses[:, index] for index, term in enumerate(task.terms)}
    results["gradient norm/all steps"] = np.array(loop.norms)
    return results


def _weights(kind: str, loop: OpenLoop, trainable: bool) -> Arrays:
    """The weights as they are now: of what is trained, or of what is frozen."""
    chosen = {
        name: parameter.numpy() for name, parameter in loop.parameters.items() if parameter.trainable == trainable
    }
    return {f"{kind}/{name}": array for name, array in to_hf_arrays(chosen).items()}


def _make_loop(directory: Path, model: Any, task: Task, stage: FinetuneStage | PretrainStage) -> OpenLoop:
    """The loop of a stage on one rank, as trainers/stages/runner.py makes it."""
    parameters = dict(model.named_parameters())
    groups = make_groups(parameters, model.bert.config.num_layers, stage)
    trained = freeze_others(parameters, groups)
    optimizer = make_adamw(trained, groups, stage, master_weights=False)
    parts = Parts(task, model, model, optimizer, optimizer, make_schedule(stage, settings.TOTAL_STEPS), None)
    return OpenLoop(
        parts=parts,
        stage=stage,
        train=TrainConfig(),
        policy=AmpPolicy("off", "float32", ""),
        ranks=alone(),
        seed=settings.SEED,
        progress=Progress(),
        store=CheckpointStore(directory / "checkpoints"),
        recorder=Recorder(directory, 0, 0),
        metrics=StepLog(directory / "metrics.jsonl"),
        samples=None,
        stop_requested=lambda: False,
        chaos=NoChaos(),
        flops=lambda tokens, sequences: 0.0,
        peak_flops=0.0,
        extra_state=dict,
    )
