"""The parameters of a stage's model by part: how many, how fast each part learns, what decays and what is frozen. By formula."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from configs.rates import Frozen, RateMultiples, frozen_parts, rate_multiples
from configs.schema import ClassifierStage, PretrainStage
from launcher.facts import ModelFacts


@dataclass(frozen=True)
class ParameterGroup:
    """A part of the model whose parameters are trained alike."""

    part: str
    tensors: int
    parameters: int
    decayed_tensors: int
    """Tensors with weight decay: matrices, not biases and LayerNorm."""
    lr: float
    """Peak learning rate; 0 when frozen."""
    weight_decay: float
    """On `decayed_tensors`; 0 when frozen."""
    frozen: bool
    known: bool = True
    """Whether `parameters` is certain: a classifier whose classes are counted in the data has been given two."""


@dataclass(frozen=True)
class _Part:
    name: str
    tensors: int
    decayed_tensors: int
    parameters: int


def block_parameters(model: ModelFacts) -> int:
    """Of one encoder block: four projections, two feed-forward layers, two LayerNorms."""
    hidden, inner = model.hidden_size, model.intermediate_size
    return 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden


def _head_parts(model: ModelFacts, stage: PretrainStage | ClassifierStage, num_labels: int) -> list[_Part]:
    """Pooler and heads; two labels where their number is not known yet."""
    hidden, labels = model.hidden_size, num_labels or 2
    pooler = _Part("pooler", 2, 1, hidden * hidden + hidden)
    if isinstance(stage, PretrainStage):
        masked = _Part("MLM head", 5, 1, hidden * hidden + hidden + 2 * hidden + model.vocab_size)
        return [pooler, masked, _linear("NSP head", hidden, 2)] if stage.nsp else [pooler, masked]
    if stage.classifier == "bilstm":
        units, width = stage.lstm_size, 2 * stage.lstm_size
        lstm = _Part("bilstm", 8, 4, 2 * 4 * units * (hidden + units + 2))
        return [lstm, _attention(width), _linear("classifier", width, labels)]
    width = hidden * _num_features(model, stage)
    parts = [pooler] if stage.layers == "pooler" else []
    if stage.hierarchical == "attention":
        parts.append(_attention(width))
    return [*parts, _linear("classifier", width, labels)]


def _num_features(model: ModelFacts, stage: ClassifierStage) -> int:
    """How many vectors the classifier sees side by side."""
    if stage.layers == "pooler" or stage.pooling != "concat":
        return 1
    return model.num_layers if stage.layers == "all" else len(stage.layers)


def _linear(name: str, width: int, outputs: int) -> _Part:
    return _Part(name, 2, 1, width * outputs + outputs)


def _attention(width: int) -> _Part:
    """A square layer with its bias, and a context vector."""
    return _Part("attention", 3, 2, width * width + 2 * width)


def parameter_groups(
    model: ModelFacts, stage: PretrainStage | ClassifierStage, num_labels: int
) -> tuple[ParameterGroup, ...]:
    """The parts from the embeddings up; neighbouring blocks that are trained alike are one."""
    multiples, frozen = rate_multiples(stage, model.num_layers), frozen_parts(stage, model.num_layers)
    pooler = model.hidden_size * model.hidden_size + model.hidden_size
    embeddings = model.num_parameters - model.num_layers * block_parameters(model) - pooler
    parts = [
        _group(_Part("embeddings", 5, 3, embeddings), stage, multiples.embeddings, frozen.embeddings),
        *_blocks(model, stage, multiples, frozen),
        *(_group(head, stage, multiples.plain, False) for head in _head_parts(model, stage, num_labels)),
    ]
    counted = num_labels > 0
    return tuple(part if counted or part.part != "classifier" else replace(part, known=False) for part in parts)


def _group(part: _Part, stage: PretrainStage | ClassifierStage, multiple: float, frozen: bool) -> ParameterGroup:
    rate, decay = (0.0, 0.0) if frozen else (stage.lr * multiple, stage.weight_decay)
    return ParameterGroup(part.name, part.tensors, part.parameters, part.decayed_tensors, rate, decay, frozen)


def _blocks(
    model: ModelFacts, stage: PretrainStage | ClassifierStage, multiples: RateMultiples, frozen: Frozen
) -> list[ParameterGroup]:
    size = block_parameters(model)
    single = [
        _group(_Part("", 16, 6, size), stage, multiple, block < frozen.num_blocks)
        for block, multiple in enumerate(multiples.blocks)
    ]
    merged: list[ParameterGroup] = []
    first = 0
    for group, members in groupby(single):
        count = len(list(members))
        name = f"block {first}" if count == 1 else f"blocks {first}-{first + count - 1}"
        merged.append(replace(group, part=name, tensors=16 * count, parameters=size * count, decayed_tensors=6 * count))
        first += count
    return merged
