"""Parameter groups: layer-wise learning rates (configs/rates.py), frozen parts, and no weight decay on biases and LayerNorm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import paddle

from configs.rates import frozen_parts, rate_multiples
from configs.schema import StageBase

_BLOCK = re.compile(r"^bert\.encoder\.layers\.(\d+)\.")
_EMBEDDINGS = "bert.embeddings."
_NO_DECAY = re.compile(r"(bias(_[ih]h_l\d+(_reverse)?)?$|norm\d?\.weight$)")


@dataclass(frozen=True)
class Group:
    """Parameters (by structured name) that share a multiple of the scheduled learning rate and a weight decay."""

    lr_multiple: float
    weight_decay: float
    names: tuple[str, ...]


def decays(name: str) -> bool:
    """Whether weight decay applies: never to biases (an LSTM's included) and LayerNorm weights."""
    return _NO_DECAY.search(name) is None


def make_groups(names: Iterable[str], num_layers: int, stage: StageBase) -> list[Group]:
    """Groups in order of first appearance; every name that the stage trains is in exactly one, a frozen one in none."""
    multiples, frozen = rate_multiples(stage, num_layers), frozen_parts(stage, num_layers)
    members: dict[tuple[float, float], list[str]] = {}
    for name in names:
        block = _BLOCK.match(name)
        if name.startswith(_EMBEDDINGS):
            multiple, is_frozen = multiples.embeddings, frozen.embeddings
        elif block is not None:
            multiple, is_frozen = multiples.blocks[int(block[1])], int(block[1]) < frozen.num_blocks
        else:
            multiple, is_frozen = multiples.plain, False
        if not is_frozen:
            members.setdefault((multiple, stage.weight_decay if decays(name) else 0.0), []).append(name)
    return [Group(multiple, decay, tuple(group)) for (multiple, decay), group in members.items()]


def freeze_others(parameters: Mapping[str, paddle.Tensor], groups: Iterable[Group]) -> dict[str, paddle.Tensor]:
    """Stop the gradients of all parameters that are in no group; returns those that are. To be called before the model is wrapped."""
    trained = {name for group in groups for name in group.names}
    for name, parameter in parameters.items():
        parameter.trainable = name in trained
    return {name: parameter for name, parameter in parameters.items() if name in trained}
