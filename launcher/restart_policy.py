"""Whether a run that has failed is started again. Pure: the failures so far give the decision.

Training is a function of config, data and seed, and a restarted run computes the same bits as before. So an error that the
computation itself has raised would come back, and only what came from outside (a lost process, machine or connection) is
worth another try, as long as the tries get further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import Exit
from launcher.protocol import RootCause

MAX_BACKOFF_S = 300.0
TRANSIENT = frozenset(
    (
        "killed",
        "crash",
        "terminated",
        "exit",
        "early_exit",
        "peer",
        "hang",
        "startup",
        "launcher",
        "agent",
        "connection",
    )
)
"""Kinds of root causes (launcher/root_cause.py) that may pass."""
STARTING = frozenset(("", "start", "import", "rendezvous", "load"))
NEVER = {
    "memory": "the same batch would need the same memory",
    "error": "the code would raise the same error again",
    "disk": "the disk has to be mended first",
}
FINAL_CODES = frozenset((Exit.USAGE, Exit.DATA, Exit.CANNOT_WRITE, Exit.NO_PROGRESS, Exit.INTERNAL))


@dataclass(frozen=True)
class RestartPolicy:
    """`launch.restart` of the config."""

    when: Literal["transient", "never"] = "never"
    max_without_progress: int = 2
    backoff_s: float = 5.0

    def describe(self) -> str:
        """One line for the plan."""
        if self.when == "never":
            return "never"
        again = "restart" if self.max_without_progress == 1 else "restarts"
        return (
            f"after a transient failure, from the newest checkpoint, {self.backoff_s:g} s later (doubling up to {MAX_BACKOFF_S:g} s);"
            f" exit 76 after {self.max_without_progress} {again} without a newer one, or the same failure twice at one step"
        )


@dataclass(frozen=True)
class Failure:
    """One failed attempt."""

    cause: RootCause
    committed: tuple[int, int]
    """How far the run is saved after it: number of finished stages, step of the newest checkpoint in the next one."""
    attempt: int = 0

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for failures that are the same one come back; empty where that is no sign of a fault in the work itself."""
        cause = self.cause
        working = cause.stage and cause.step is not None and cause.phase not in STARTING
        return (cause.kind, cause.node, cause.rank, cause.stage, cause.step, cause.phase) if working else ()


@dataclass(frozen=True)
class Decision:
    """What to do after a failure."""

    restart: bool
    reason: str
    """One line for people; may be empty."""
    delay_s: float = 0.0
    exit_code: int | None = None
    """Instead of the root cause's; None: that."""


def decide(policy: RestartPolicy, failures: Sequence[Failure]) -> Decision:
    """Whether the attempt after the last of `failures` (oldest first, at least one) is made, and when."""
    last = failures[-1]
    if policy.when == "never":
        return Decision(False, "")
    if last.cause.exit_code in FINAL_CODES or last.cause.kind not in TRANSIENT:
        why = NEVER.get(last.cause.kind, "this does not mend itself")
        return Decision(False, f"not restarted: {why}")
    earlier = next((failure for failure in failures[:-1] if last.same and failure.same == last.same), None)
    if earlier is not None:
        where = f"attempts {earlier.attempt} and {last.attempt} failed alike at step {last.cause.step}"
        return Decision(False, f"not restarted: {where}", exit_code=int(Exit.NO_PROGRESS))
    in_vain = _restarts_in_vain(failures)
    if in_vain >= policy.max_without_progress:
        times = "a restart has" if in_vain == 1 else f"{in_vain} restarts in a row have"
        return Decision(False, f"not restarted: {times} brought no newer checkpoint", exit_code=int(Exit.NO_PROGRESS))
    return Decision(True, last.cause.line(), min(MAX_BACKOFF_S, policy.backoff_s * 2**in_vain))


def _restarts_in_vain(failures: Sequence[Failure]) -> int:
    """Restarts at the end of the history after which nothing newer was saved."""
    count = 0
    for before, after in zip(reversed(failures[:-1]), reversed(failures[1:]), strict=True):
        if after.committed > before.committed:
            break
        count += 1
    return count
