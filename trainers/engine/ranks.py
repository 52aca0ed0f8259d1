"""This process among its peers: Paddle's data parallelism (fleet's on GPU), and the few collectives that the loop needs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import paddle
import paddle.distributed as dist
from paddle.base import core
from paddle.distributed import fleet

T = TypeVar("T")

POLL_INTERVAL_S = 0.02
LEAVE_TIMEOUT_S = 30.0


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

    def on_first(self, work: Callable[[], T], beat: Callable[[], None]) -> T | None:
        """Rank 0 does host work of any length; the others wait for it and get None.

        They meet in small collectives meanwhile, because gloo gives up on a peer that is not there within 30 s. `beat` is called
        as long as it takes. Raises on rank 0 what `work` raises.
        """
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(work) if self.rank == 0 else None
            while self.any(future is not None and not future.done()):
                beat()
                time.sleep(POLL_INTERVAL_S)
            return None if future is None else future.result()


def leave_ranks(ranks: Ranks) -> None:
    """Return when this process may end: every rank has come out of its last collective.

    A process that ends resets its connections, and with them the last bytes of a collective that a slower rank still reads. The store
    (which rank 0 holds and so leaves last) is apart from those connections.
    """
    if ranks.world_size == 1:
        return
    store = core.create_or_get_global_tcp_store()
    _meet(store, "bert4doc/last_collective", ranks.world_size)
    if ranks.rank == 0:
        _meet(store, "bert4doc/leaving", ranks.world_size)
    else:
        with contextlib.suppress(RuntimeError):
            store.add("bert4doc/leaving", 1)


def _meet(store: Any, key: str, world_size: int) -> None:
    """Count this rank in and wait for the others, for at most LEAVE_TIMEOUT_S: a lost peer is the launcher's to notice."""
    store.add(key, 1)
    give_up = time.monotonic() + LEAVE_TIMEOUT_S
    while store.add(key, 0) < world_size and time.monotonic() < give_up:
        time.sleep(POLL_INTERVAL_S)


def join_ranks() -> Ranks:
    """Meet the other ranks (gloo on CPU, NCCL on GPU) as `paddle.distributed.launch` set them up."""
    device = tune_device()
    if dist.ParallelEnv().rank > 0:
        _wait_for_store(os.environ["PADDLE_MASTER"])
    if device.startswith("gpu"):
        fleet.init(is_collective=True)
    else:
        # fleet makes a gloo group for each of its parallel axes, and every second start of 4 ranks then fails ("Connection refused"
        # between peers, Paddle 3.3.1); the one group of all ranks is all that data parallelism needs.
        dist.init_parallel_env()
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def _wait_for_store(address: str) -> None:
    """Return when rank 0's store listens at `host:port`: Paddle's own retry sleeps 3 s at a time. The node's agent bounds it."""
    host, port = address.rsplit(":", 1)
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
            return
        time.sleep(POLL_INTERVAL_S)


def tune_device() -> str:
    """Paddle's device of this process, after settings that make it fast."""
    device: str = paddle.get_device()
    if device == "cpu":
        # Strided views make attention's transposes fall into a slow generic copy on CPU (12 % of a training step).
        paddle.set_flags({"FLAGS_use_stride_kernel": False})
    return device


def wrap_model(model: paddle.nn.Layer, ranks: Ranks, has_idle_parameters: bool) -> Any:
    """The model under data parallelism; itself on one rank. `has_idle_parameters`: some parameters take part in some steps only; in
    the others they keep no gradient, as on one rank."""
    if ranks.world_size == 1:
        return model
    if has_idle_parameters:
        return paddle.DataParallel(model, find_unused_parameters=True)
    return fleet.distributed_model(model) if ranks.is_gpu else paddle.DataParallel(model)


def wrap_optimizer(optimizer: Any, ranks: Ranks) -> Any:
    """The optimizer under fleet on GPU; elsewhere itself, since the model sums the gradients."""
    return fleet.distributed_optimizer(optimizer) if ranks.world_size > 1 and ranks.is_gpu else optimizer
