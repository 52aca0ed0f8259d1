"""This process among its peers: fleet, and the few collectives that the loop needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.distributed import fleet


@dataclass(frozen=True)
class Ranks:
    """Rank, world size and device of this process."""

    rank: int
    world_size: int
    device: str

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("gpu")

    def sum(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """Element-wise sum over all ranks, float64, the same bits on every rank."""
        array = np.asarray(values, dtype=np.float64)
        if self.world_size == 1:
            return array
        tensor = paddle.to_tensor(array)
        dist.all_reduce(tensor)
        summed: np.ndarray = tensor.numpy()
        return summed

    def sum_in_place(self, tensor: paddle.Tensor) -> paddle.Tensor:
        """Sum a device tensor over all ranks without waiting for it on the host."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """[world_size, n] float64: every rank's n values."""
        array = np.asarray(values, dtype=np.float64)
        rows = np.zeros((self.world_size, len(array)))
        rows[self.rank] = array
        return self.sum(rows)

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        return bool(self.sum([float(flag)])[0] > 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0.0])


def join_ranks() -> Ranks:
    """Meet the other ranks (gloo on CPU, NCCL on GPU) as `paddle.distributed.launch` set them up."""
    device = tune_device()
    fleet.init(is_collective=True)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def tune_device() -> str:
    """Paddle's device of this process, after settings that make it fast."""
    device: str = paddle.get_device()
    if device == "cpu":
        # Strided views make attention's transposes fall into a slow generic copy on CPU (12 % of a training step).
        paddle.set_flags({"FLAGS_use_stride_kernel": False})
    return device


def wrap_model(model: paddle.nn.Layer, ranks: Ranks) -> Any:
    """The model under fleet's data parallelism; itself on one rank."""
    return fleet.distributed_model(model) if ranks.world_size > 1 else model


def wrap_optimizer(optimizer: Any, ranks: Ranks) -> Any:
    """The optimizer under fleet; itself on one rank."""
    return fleet.distributed_optimizer(optimizer) if ranks.world_size > 1 else optimizer
