"""Learning rates and weight decay of every parameter at every step, from the paper (section 5.3.3), its code
and Transformers' schedules."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_polynomial_decay_schedule_with_warmup,
)

from trainers.align.reference.bert_adam import share

Arrays = dict[str, np.ndarray]
BLOCK = re.compile(r"encoder\.layer\.(\d+)\.")


def top_rate(name: str, num_layers: int, settings: dict[str, Any]) -> float:
    """Peak rate of a parameter. Block i of N: lr * xi^(N-1-i); or a rate of its own; or lr / f, lr, lr * f by thirds.

    Embeddings, pooler and heads keep the plain rate (lr unless given); decayed embeddings get lr * xi^N, as a block below the first.
    """
    lr, xi, plain = settings["lr"], settings["layer_decay"], settings["plain_rate"]
    block = BLOCK.search(name)
    if block is not None:
        return block_rate(int(block.group(1)), num_layers, settings)
    if settings["decay_embeddings"] and ".embeddings." in name:
        return float(lr * xi**num_layers)
    return float(lr if plain is None else plain)


def block_rate(block: int, num_layers: int, settings: dict[str, Any]) -> float:
    """Peak rate of an encoder block (0-based)."""
    lr, factor = settings["lr"], settings["rate_bands"]
    if settings["layer_rates"] is not None:
        return float(settings["layer_rates"][block])
    if factor is None:
        return float(lr * settings["layer_decay"] ** (num_layers - 1 - block))
    if block < num_layers / 3:
        return float(lr / factor)
    return float(lr if block < 2 * num_layers / 3 else lr * factor)


def weight_decay_of(name: str, weight_decay: float) -> float:
    """None on biases and LayerNorm."""
    return 0.0 if name.endswith(".bias") or "LayerNorm" in name else weight_decay


def make_groups(named: Any, num_layers: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One torch parameter group for each parameter."""
    return [
        {
            "params": [parameter],
            "lr": top_rate(name, num_layers, settings),
            "weight_decay": weight_decay_of(name, settings["weight_decay"]),
        }
        for name, parameter in named
    ]


def make_schedule(optimizer: Any, settings: dict[str, Any]) -> Any:
    """Transformers' schedule of a name, or the original code's."""
    warmup, total = settings["warmup_steps"], settings["total_steps"]
    if settings["schedule"] == "linear":
        return get_linear_schedule_with_warmup(optimizer, warmup, total)
    if settings["schedule"] == "cosine":
        return get_cosine_schedule_with_warmup(optimizer, warmup, total)
    if settings["schedule"] == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup)
    if settings["schedule"] == "bert_adam":
        return LambdaLR(optimizer, lambda step: share(step, total, settings["warmup_share"]))
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
            results[f"decay/{label}: {name}"] = np.array([group["weight_decay"]])
    return results
