"""AdamW over parameter groups, and its state under structured names (Paddle's own keys depend on construction order)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle

from configs.schema import StageBase
from trainers.optim.groups import Group


class UncorrectedAdamW(paddle.optimizer.AdamW):
    """AdamW without bias correction: Paddle divides by 1 - beta^t and multiplies beta^t on after every step, so from 0 it stays 0."""

    def _add_moments_pows(self, p: paddle.Tensor) -> None:
        super()._add_moments_pows(p)
        for kind in (self._beta1_pow_acc_str, self._beta2_pow_acc_str):
            power = self._accumulators[kind][p.name]
            power.set_value(np.zeros(power.shape, dtype=np.float32))


def make_adamw(
    parameters: Mapping[str, paddle.Tensor], groups: Sequence[Group], stage: StageBase, master_weights: bool
) -> paddle.optimizer.AdamW:
    """Decoupled AdamW; a group's learning_rate multiplies the rate that `set_lr` gives. Clipping is the loop's.

    With `bias_correction: false` the step is that of the original code's BERTAdam: w -= lr * (m / (sqrt(v) + eps) + decay * w).
    """
    kind = paddle.optimizer.AdamW if stage.bias_correction else UncorrectedAdamW
    return kind(
        learning_rate=stage.lr,
        beta1=stage.adam_beta1,
        beta2=stage.adam_beta2,
        epsilon=stage.adam_eps,
        weight_decay=stage.weight_decay,
        multi_precision=master_weights,
        parameters=[
            {
                "params": [parameters[name] for name in group.names],
                "learning_rate": group.lr_multiple,
                "weight_decay": group.weight_decay,
            }
            for group in groups
        ],
    )


def _state_name(optimizer: Any, parameter: paddle.Tensor) -> str:
    """The name under which Paddle keeps a parameter's moments: that of its float32 master weight where it has one."""
    master = optimizer._master_weights.get(parameter.name)
    return str(parameter.name if master is None else master.name)


def adamw_state(optimizer: Any, parameters: Mapping[str, paddle.Tensor]) -> dict[str, paddle.Tensor]:
    """Moments, beta powers and float32 master weights as `KIND/STRUCTURED_NAME`; parameters never stepped have none."""
    state: dict[str, paddle.Tensor] = {}
    for name, parameter in parameters.items():
        for kind, tensors in optimizer._accumulators.items():
            if _state_name(optimizer, parameter) in tensors:
                state[f"{kind}/{name}"] = tensors[_state_name(optimizer, parameter)]
        if parameter.name in optimizer._master_weights:
            state[f"master/{name}"] = optimizer._master_weights[parameter.name]
    return state


def load_adamw_state(optimizer: Any, parameters: Mapping[str, paddle.Tensor], state: Mapping[str, np.ndarray]) -> None:
    """Put saved state back before the first step. Raises KeyError for a name that the model lacks."""
    tensors = {tuple(key.split("/", 1)): paddle.to_tensor(array) for key, array in state.items()}
    for (kind, name), tensor in tensors.items():
        if kind == "master":
            tensor.name = f"{parameters[name].name}_fp32_master_0"
            optimizer._master_weights[parameters[name].name] = tensor
    moments: dict[str, Any] = {}
    for (kind, name), tensor in tensors.items():
        if kind != "master":
            tensor.name = f"{_state_name(optimizer, parameters[name])}_{kind}_0"
            moments[tensor.name] = tensor
    optimizer.set_state_dict(moments)
    # Paddle would make them when a parameter is next stepped. Until then a checkpoint would lack them, and a parameter that was never
    # stepped would be refused its first step.
    stepped = dict.fromkeys(name for kind, name in tensors if kind != "master")
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(block, [parameters[name] for name in stepped])
    optimizer._accumulators_holder = {}
