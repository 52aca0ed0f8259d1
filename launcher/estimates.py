"""Estimated memory of a rank and disk of a run, by formula.

Upper bounds for full-length sequences, made of terms that `plan` names: a figure to judge a batch size by, not a measurement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.schema import Config, FinetuneStage, PretrainStage
from launcher.facts import ModelFacts

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


def head_parameters(model: ModelFacts, stage: PretrainStage | FinetuneStage, num_labels: int) -> int:
    """Parameters of a stage's heads: MLM transform, LayerNorm and bias (decoder tied) and NSP; or the classifier."""
    hidden = model.hidden_size
    if isinstance(stage, PretrainStage):
        masked = hidden * hidden + hidden + 2 * hidden + model.vocab_size
        return masked + (2 * hidden + 2 if stage.nsp else 0)
    blocks = (
        {"pooler": 1, "all": model.num_layers}.get(stage.layers, 0)
        if isinstance(stage.layers, str)
        else len(stage.layers)
    )
    features = hidden * (blocks if stage.pooling == "concat" else 1)
    labels = num_labels or 2
    return features * labels + labels


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


def activation_bytes(model: ModelFacts, stage: PretrainStage | FinetuneStage, sequences: int, half: bool) -> int:
    """Bytes of all blocks, and in pre-training of the logits at the masked positions (logits, probabilities, gradient in float32)."""
    total = model.num_layers * block_activation_bytes(model, sequences, stage.max_length, half)
    if isinstance(stage, PretrainStage):
        predictions = min(stage.max_predictions, math.ceil(stage.mask_probability * stage.max_length))
        total += sequences * predictions * model.vocab_size * 3 * FLOAT32_BYTES
    return total


def rank_memory(
    model: ModelFacts,
    stage: PretrainStage | FinetuneStage,
    sequences: int,
    num_labels: int,
    half: bool,
    gpu: bool,
) -> MemoryEstimate:
    """Memory of a rank that computes `sequences` at once: float32 weights, gradients, two AdamW moments, EMA, activations, runtime."""
    weights = FLOAT32_BYTES * (model.num_parameters + head_parameters(model, stage, num_labels))
    return MemoryEstimate(
        weights=weights,
        gradients=weights,
        optimizer=2 * weights,
        ema=weights if stage.ema is not None else 0,
        activations=activation_bytes(model, stage, sequences, half),
        runtime=RUNTIME_BYTES_GPU if gpu else RUNTIME_BYTES_CPU,
    )


def stage_disk(
    config: Config, name: str, model: ModelFacts, num_labels: int, total_steps: int | None = None
) -> DiskEstimate:
    """Disk of a stage: the kept checkpoints, the one being written, the best one, the exported model, and those of
    `save_model_every` (none as long as the number of steps is unknown).

    A checkpoint holds 12 bytes per parameter: weights and two moments in float32; 4 more with an EMA.
    """
    stage = config.stages[name]
    parameters = model.num_parameters + head_parameters(model, stage, num_labels)
    has_best = isinstance(stage, FinetuneStage)
    every = stage.save_model_every if isinstance(stage, PretrainStage) else None
    kept_models = total_steps // every if every and total_steps else 0
    return DiskEstimate(
        checkpoint=parameters * (16 if stage.ema is not None else 12),
        num_checkpoints=config.train.keep_checkpoints + 1 + (1 if has_best else 0),
        model=parameters * FLOAT32_BYTES,
        num_models=1 + kept_models,
    )
