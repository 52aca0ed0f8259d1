"""Learning rates and weight decay of every parameter at every step, from section 1 of the paper and Transformers' schedules."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
)

Arrays = dict[str, np.ndarray]
BLOCK = re.compile(r"encoder\.layer\.(\d+)\.")


def top_rate(name: str, lr: float, num_layers: int, xi: float) -> float:
    """lr * xi^(N-1-i) in encoder block i of N (the last block gets lr); embeddings, pooler and heads keep lr."""
    block = BLOCK.search(name)
    return lr if block is None else lr * xi ** (num_layers - 1 - int(block.group(1)))


def weight_decay_of(name: str, weight_decay: float) -> float:
    """None on biases and LayerNorm."""
    return 0.0 if name.endswith(".bias") or "LayerNorm" in name else weight_decay


def make_groups(named: Any, num_layers: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One torch parameter group for each parameter."""
    return [
        {
            "params": [parameter],
            "lr": top_rate(name, settings["lr"], num_layers, settings["layer_decay"]),
            "weight_decay": weight_decay_of(name, settings["weight_decay"]),
        }
        for name, parameter in named
    ]


def make_schedule(optimizer: Any, settings: dict[str, Any]) -> Any:
    """Transformers' schedule of a name."""
    warmup, total = settings["warmup_steps"], settings["total_steps"]
    if settings["schedule"] == "linear":
        return get_linear_schedule_with_warmup(optimizer, warmup, total)
    if settings["schedule"] == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warmup, total)
    if settings["schedule"] == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    return get_polynomial_decay_schedule_with_warmup(optimizer, warmup, total, lr_end=0.0, power=settings["poly_power"])


def compute_rates(spec: dict[str, Any]) -> Arrays:
    """For every named setting: [steps] learning rates of each parameter; and each parameter's weight decay."""
    results: Arrays = {}
    for label, settings in spec["settings"].items():
        named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in spec["names"]]
        optimizer = torch.optim.AdamW(make_groups(named, spec["num_layers"], settings))
        schedule = make_schedule(optimizer, settings)
        columns = []
        for _ in range(settings["total_steps"]):
            columns.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        for row, (name, _) in zip(np.array(columns).T, named, strict=True):
            results[f"rates {label}/{name}"] = row
        for (name, _), group in zip(named, optimizer.param_groups, strict=True):
            results[f"decay {label}/{name}"] = np.array([group["weight_decay"]])
    return results
