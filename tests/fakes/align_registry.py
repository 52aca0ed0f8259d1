"""The list of mistakes that the alignment must find, and how one is made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from trainers.align import settings

TEXT, RATES, FINETUNING, PRETRAINING = "text", "rates", "random12 fine-tuning", "random12 pre-training"
ORIGINAL, FROZEN, HIERARCHICAL = (
    f"{settings.RANDOM} {variant}" for variant in (settings.ORIGINAL, settings.FROZEN, settings.HIERARCHICAL)
)
Patches = list[Any]
MUTATIONS: dict[str, tuple[str, tuple[str, ...], Callable[[], Patches]]] = {}
"""Name: (section, keys of the rows that must fail, the patches)."""


def mutation(name: str, section: str, *rows: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTATIONS[name] = (section, rows, make)
        return make

    return register


def everywhere(old: Any, new: Any) -> Patches:
    """Replace a function in every module of the project that holds it."""
    name = old.__name__
    holders = [
        m
        for key, m in sys.modules.items()
        if key.startswith(("trainers.", "configs.")) and getattr(m, name, None) is old
    ]
    assert holders
    return [patch.object(module, name, new) for module in holders]
