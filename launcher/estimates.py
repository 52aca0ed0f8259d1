"""Estimated memory of a rank and disk of a run, by formula.

Upper bounds for full-length sequences, made of terms that `plan` names: a figure to judge a batch size by, not a measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.rates import frozen_parts
from configs.schema import ClassifierStage, Config, PretrainStage
from launcher.facts import ModelFacts
from launcher.parameters import parameter_groups

FLOAT32_BYTES = 4
# Interpreter, Paddle and its libraries, resident before the model exists (measured: 0.6 GB on CPU); on GPU the CUDA context as well.
RUNTIME_BYTES_CPU = 600 * 10**6
RUNTIME_BYTES_GPU = 1_500 * 10**6


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes per rank, by term, while the largest micro-batch of a stage is computed."""

    weights: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        """All terms together."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations + self.runtime


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes that a stage leaves in the run directory at its fullest moment."""

    checkpoint: int
    num_checkpoints: int
    model: int
    num_models: int = 1
    """The exported model and those kept of single steps."""

    @property
    def total(self) -> int:
        """All checkpoints and models."""
        return self.checkpoint * self.num_checkpoints + self.model * self.num_models


def block_activation_bytes(model: ModelFacts, sequences: int, length: int, half: bool) -> int:
    """Bytes that one encoder block keeps for its backward pass.

    Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) counts, per token: 5 vectors of h in attention, 2 in the LayerNorms, 1 + 2 i/h
    in the feed-forward part, plus two dropout masks of one byte; and per head and token pair two numbers and a mask byte.
    """
    width = 2 if half else FLOAT32_BYTES
    vectors = 8 + 2 * model.intermediate_size / model.hidden_size
    per_token = model.hidden_size * (vectors * width + 2)
    per_pair = model.num_heads * (2 * width + 1)
    return math.ceil(sequences * length * (per_token + length * per_pair))


def activation_bytes(model: ModelFacts, stage: PretrainStage | ClassifierStage, sequences: int, half: bool) -> int:
    """Bytes of all blocks that are trained, in pre-training of the logits at the masked positions (logits, probabilities, gradient in
    float32), and with a bilstm of its four gates, cell and output in both directions."""
    num_blocks = model.num_layers - frozen_parts(stage, model.num_layers).num_blocks
    total = num_blocks * block_activation_bytes(model, sequences, stage.max_length, half)
    if isinstance(stage, PretrainStage):
        predictions = min(stage.max_predictions, math.ceil(stage.mask_probability * stage.max_length))
        total += sequences * predictions * model.vocab_size * 3 * FLOAT32_BYTES
    elif stage.classifier == "bilstm":
        total += sequences * stage.max_length * 2 * 6 * stage.lstm_size * FLOAT32_BYTES
    return total


def rank_memory(
    model: ModelFacts,
    stage: PretrainStage | ClassifierStage,
    sequences: int,
    num_labels: int,
    half: bool,
    gpu: bool,
) -> MemoryEstimate:
    """Memory of a rank that computes `sequences` at once: float32 weights, and of what is trained gradients, two AdamW moments and the
    EMA; activations, runtime."""
    total, trained = _parameters(model, stage, num_labels)
    return MemoryEstimate(
        weights=FLOAT32_BYTES * total,
        gradients=FLOAT32_BYTES * trained,
        optimizer=2 * FLOAT32_BYTES * trained,
        ema=FLOAT32_BYTES * trained if stage.ema is not None else 0,
        activations=activation_bytes(model, stage, sequences, half),
        runtime=RUNTIME_BYTES_GPU if gpu else RUNTIME_BYTES_CPU,
    )


def _parameters(model: ModelFacts, stage: PretrainStage | ClassifierStage, num_labels: int) -> tuple[int, int]:
    """(all parameters of a stage's model, those that are trained)."""
    groups = parameter_groups(model, stage, num_labels)
    return sum(group.parameters for group in groups), sum(group.parameters for group in groups if not group.frozen)


def stage_disk(
    config: Config, name: str, model: ModelFacts, num_labels: int, total_steps: int | None = None
) -> DiskEstimate:
    """Disk of a stage: the kept checkpoints, the one being written, the best one, the exported model, and those of
    `save_model_every` (none as long as the number of steps is unknown).

    A checkpoint holds 4 bytes per parameter, and per trained parameter 8 for its two moments in float32 and 4 with an EMA.
    """
    stage = config.stages[name]
    total, trained = _parameters(model, stage, num_labels)
    has_best = isinstance(stage, ClassifierStage)
    every = stage.save_model_every if isinstance(stage, PretrainStage) else None
    kept_models = total_steps // every if every and total_steps else 0
    return DiskEstimate(
        checkpoint=FLOAT32_BYTES * (total + trained * (3 if stage.ema is not None else 2)),
        num_checkpoints=config.train.keep_checkpoints + 1 + (1 if has_best else 0),
        model=total * FLOAT32_BYTES,
        num_models=1 + kept_models,
    )
