"""What the parts of a run say to each other: events from agents and supervisor, the observer of a run, the outcome of
a run.

Events are JSON objects with a "type". From an agent (each carries "node"):

- {"type":"rank","record":{...}}: one record of a rank (phase, device, stage_start, progress, eval, checkpoint,
  stage_end, message ...)
-
  {"type":"heartbeats","ranks":[{"rank","pid","t","phase","stage","step","rss_bytes","device_bytes","age_s","state"}]}:
  twice a second; state is starting | running | done | failed | lost
- {"type":"rank_exit","rank","returncode","signal","t"}: a worker has ended
- {"type":"prepare","what","label","done","total","unit"} and {"type":"message","level","text"}: from the prepare
  command
- {"type":"ended", ...}: the last word of an agent, see `launcher.ends.NodeEnd`

From the supervisor:

- {"type":"attempt_start","attempt","start_port","nodes":[{"node","host","nproc","first_rank"}],"t"}
- {"type":"state","state":"preparing|running|stopping|restarting","reason","t"}
- {"type":"restart","attempt","reason","delay_s","step","t"}: the run goes on with this attempt after a pause, from the
  checkpoint of this step of the first unfinished stage (0: from its start)
- {"type":"attempt_end","attempt","state","exit_code","root_cause","t"}
- {"type":"run_end","state":"finished|stopped|failed","exit_code","root_cause","t"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Event = Mapping[str, Any]
EndState = Literal["finished", "stopped", "failed"]


class Observer(Protocol):
    """Someone who watches a run, such as the console. Its exceptions never reach the run: it is then no longer
    called."""

    def on_event(self, event: Event) -> None:
        """Called for every event, in the supervisor's only thread: must return at once."""

    def tick(self) -> None:
        """Called about four times a second, also when nothing happens."""


@dataclass(frozen=True)
class RootCause:
    """The one reason for an abnormal end."""

    node: int | None
    rank: int | None
    stage: str
    step: int | None
    phase: str
    what: str
    """One line: `ValueError: bad data row 17`, `killed (SIGKILL): ...`."""
    traceback: str
    """The failing rank's own traceback, or the end of its log; may be empty."""
    exit_code: int
    hint: str = ""
    """What to do next; may be empty."""
    log: str = ""
    """File with the complete output of the failing process; may be empty."""
    kind: str = ""
    """What sort of failure, for the restart policy: memory | disk | peer | connection | user | error | killed | crash |
    terminated | exit | early_exit, or the kind of a NodeFailure (launcher/ends.py)."""
    details: tuple[str, ...] = ()
    """More lines for the reader: samples in work, memory, what became of the other ranks."""

    def line(self) -> str:
        """`node 0 rank 1, stage finetune, step 17: ValueError: bad data row 17`."""
        where = [
            f"node {self.node}" if self.node is not None else "",
            f"rank {self.rank}" if self.rank is not None else "",
        ]
        place = [" ".join(part for part in where if part)]
        place.append(f"stage {self.stage}" if self.stage else "")
        place.append(f"step {self.step}" if self.step and self.stage else "")
        place.append(f"during {self.phase}" if self.phase and (self.phase != "step" or not self.step) else "")
        head = ", ".join(part for part in place if part)
        return f"{head}: {self.what}" if head else self.what


@dataclass(frozen=True)
class Outcome:
    """How an attempt, or a whole run, ended."""

    state: EndState
    exit_code: int
    root_cause: RootCause | None = None
    attempt: int = 0
    note: str = ""
    """Why there was no further attempt; may be empty."""
