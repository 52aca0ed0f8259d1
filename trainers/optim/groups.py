"""Parameter groups: layer-wise learning rates (paper.md section 1) and no weight decay on biases and LayerNorm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_BLOCK = re.compile(r"^bert\.encoder\.layers\.(\d+)\.")
_NO_DECAY = re.compile(r"(bias$|norm\d?\.weight$)")


@dataclass(frozen=True)
class Group:
    """Parameters (by structured name) that share a multiple of the scheduled learning rate and a weight decay."""

    lr_multiple: float
    weight_decay: float
    names: tuple[str, ...]


def lr_multiple(name: str, num_layers: int, layer_decay: float) -> float:
    """Multiple of the learning rate: layer_decay^(N-1-i) in encoder block i of N, 1 for embeddings, pooler and heads."""
    match = _BLOCK.match(name)
    return 1.0 if match is None else layer_decay ** (num_layers - 1 - int(match[1]))


def decays(name: str) -> bool:
    """Whether weight decay applies: never to biases and LayerNorm weights."""
    return _NO_DECAY.search(name) is None


def make_groups(names: Iterable[str], num_layers: int, layer_decay: float, weight_decay: float) -> list[Group]:
    """Groups in order of first appearance; every name is in exactly one."""
    members: dict[tuple[float, float], list[str]] = {}
    for name in names:
        key = (lr_multiple(name, num_layers, layer_decay), weight_decay if decays(name) else 0.0)
        members.setdefault(key, []).append(name)
    return [Group(multiple, decay, tuple(group)) for (multiple, decay), group in members.items()]
