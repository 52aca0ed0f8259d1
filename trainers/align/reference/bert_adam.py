"""The optimizer of the paper's own (PyTorch) code: x/w in warm-up, then 1 - x;
no bias correction; every parameter's gradient clipped to a norm of its own; decoupled weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def share(step: int, total_steps: int, warmup: float) -> float:
    """Share of the peak rate at a step (0-based): with x = step / total, x/w below the warm-up's share w, else 1 - x."""
    x = step / total_steps
    return x / warmup if x < warmup else max(0.0, 1.0 - x)


class BertAdam:
    """Steps over torch parameter groups (`params`, `lr`, `weight_decay`)."""

    def __init__(self, groups: list[dict[str, Any]], settings: dict[str, Any]) -> None:
        self.param_groups = groups
        self._settings = settings
        self._steps = 0
        self._moments = {
            parameter: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for group in groups
            for parameter in group["params"]
        }

    def rate(self, group: dict[str, Any]) -> float:
        """Learning rate of a group in the coming step."""
        total, warmup = self._settings["total_steps"], self._settings["warmup_share"]
        rate: float = group["lr"] * share(self._steps, total, warmup)
        return rate

    @torch.no_grad()
    def step(self) -> None:
        """Clip each gradient on its own, then w -= lr * (m / (sqrt(v) + eps) + decay * w)."""
        beta1, beta2 = self._settings["adam_beta1"], self._settings["adam_beta2"]
        for group in self.param_groups:
            for parameter in group["params"]:
                nn.utils.clip_grad_norm_([parameter], self._settings["clip"])
                m, v = self._moments[parameter]
                m.mul_(beta1).add_(parameter.grad, alpha=1.0 - beta1)
                v.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1.0 - beta2)
                update = m / (v.sqrt() + self._settings["adam_eps"]) + group["weight_decay"] * parameter
                parameter.sub_(update, alpha=self.rate(group))
        self._steps += 1
