"""The nodes of a job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeShape:
    """One node of the job."""

    host: str = "127.0.0.1"
    """Address that the other nodes reach it at."""
    nproc: int = 1
    """Ranks on this node."""
    devices: tuple[str, ...] = ()
    """GPU numbers, one per rank; empty on CPU."""
    interface: str = "lo"
    """Network interface that gloo and NCCL use; empty: their own choice."""
