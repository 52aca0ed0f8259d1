"""How ranks and nodes ended, as agents report it; launcher/root_cause.py chooses the reason from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class RankEnd:
    """How one rank's process ended, as its agent saw it."""

    rank: int
    node: int
    returncode: int | None = None
    """Exit code; None when a signal ended it, or nothing is known."""
    signal: int | None = None
    t: float = 0.0
    """Unix time of the end on the node's clock."""
    stopped_by_agent: bool = False
    """It still ran when its agent began to stop the node: its end is no cause."""
    finished: bool = False
    """It had reported the phase `done`."""
    phase: str = ""
    stage: str = ""
    step: int | None = None
    error: Mapping[str, Any] | None = None
    """errors/rank-N.json."""
    log_tail: str = ""
    log: str = ""
    oom_kills: int = 0
    """Kills for lack of memory that the kernel counted on this node during the attempt."""
    disk_full: bool = False
    """Nothing more can be written where its log and its error record belong."""
    native: str = ""
    """Python's stack at a crash in native code (errors/rank-N.native)."""
    rss_bytes: int = 0
    """Resident memory at its last heartbeat."""


@dataclass(frozen=True)
class NodeFailure:
    """Why a node failed as a whole."""

    kind: str
    """prepare | start | launcher | startup | port | agent | hang."""
    what: str
    t: float
    exit_code: int
    hint: str = ""
    rank: int | None = None
    phase: str = ""
    detail: str = ""
    log: str = ""
    details: tuple[str, ...] = ()
    """More lines for the reader."""


@dataclass(frozen=True)
class NodeEnd:
    """The last word of an agent."""

    node: int
    reason: str
    """finished | stopped | failed | killed."""
    ranks: tuple[RankEnd, ...] = ()
    failure: NodeFailure | None = None
    memory: str = ""
    """Memory of the node and of its control group at the end, in words."""

    def to_json(self) -> dict[str, Any]:
        """The `ended` event."""
        return {"type": "ended", **asdict(self)}

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> NodeEnd:
        """Reads `to_json`. Raises KeyError or TypeError on anything else."""
        failure = event["failure"]
        return cls(
            node=event["node"],
            reason=event["reason"],
            ranks=tuple(RankEnd(**rank) for rank in event["ranks"]),
            failure=None if failure is None else NodeFailure(**{**failure, "details": tuple(failure["details"])}),
            memory=str(event.get("memory") or ""),
        )
