"""Which ranks there are: how many per node, on which devices. Decided from the command line and what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.inventory import NodeShape
from configs.errors import ConfigError
from launcher.facts import Gpu


@dataclass(frozen=True)
class Topology:
    """The nodes of the job and the GPUs that they use."""

    nodes: tuple[NodeShape, ...]
    gpus: tuple[Gpu, ...] = ()
    note: str = ""

    @property
    def world_size(self) -> int:
        """Ranks over all nodes."""
        return sum(node.nproc for node in self.nodes)


def local_topology(
    nproc: str | int,
    devices: str | None,
    gpus: tuple[Gpu, ...],
    cores: int,
    environment: Mapping[str, str],
    host: str,
) -> Topology:
    """One node: `nproc` ranks (`auto`: every GPU, or half the cores on CPU, at least 1) on `devices` or on what the machine has.

    Raises ConfigError for GPUs that are not there and for more ranks than GPUs.
    """
    chosen = choose_gpus(devices, gpus, environment)
    if nproc != "auto":
        count = _positive(nproc)
    elif chosen:
        count = len(chosen)
    else:
        count = max(1, cores // 2)
    if chosen and count > len(chosen):
        raise ConfigError(
            f"--nproc-per-node {count}: {count} ranks need {count} GPUs, but there {_are(len(chosen))}",
            f"use --nproc-per-node {len(chosen)} or auto, or name more GPUs with --devices",
        )
    note = ""
    if not chosen and count > cores:
        note = f"{count} ranks share {cores} {'core' if cores == 1 else 'cores'}: they will run one after the other"
    used = chosen[:count]
    shape = NodeShape(host=host, nproc=count, devices=tuple(str(gpu.index) for gpu in used))
    return Topology((shape,), used, note)


def choose_gpus(devices: str | None, gpus: tuple[Gpu, ...], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs named by --devices, else by CUDA_VISIBLE_DEVICES, else all. Raises ConfigError for one that is not there."""
    source = "--devices"
    if devices is None:
        devices, source = environment.get("CUDA_VISIBLE_DEVICES"), "CUDA_VISIBLE_DEVICES"
        if devices is None or not gpus:
            return gpus
        if devices.strip() in ("", "-1"):
            return ()
    numbers = [part.strip() for part in devices.split(",")]
    by_index = {str(gpu.index): gpu for gpu in gpus}
    unknown = [number for number in numbers if number not in by_index]
    if unknown or len(set(numbers)) != len(numbers):
        there = ", ".join(by_index) if by_index else "none"
        problem = f"GPU '{unknown[0]}' is not there" if unknown else "a GPU is named twice"
        raise ConfigError(
            f"{source}={devices}: {problem}; GPUs here: {there}",
            "give numbers as nvidia-smi shows them: --devices 0,1",
        )
    return tuple(by_index[number] for number in numbers)


def _positive(nproc: str | int) -> int:
    try:
        count = int(nproc)
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(
            f"--nproc-per-node {nproc}: must be 'auto' or a whole number from 1 up",
            "example: --nproc-per-node 2",
        )
    return count


def _are(count: int) -> str:
    return {0: "are none", 1: "is 1"}.get(count, f"are {count}")
