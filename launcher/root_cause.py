"""Chooses the one reason why an attempt ended, from what every rank and node left behind.

When one rank fails, the others fail too, a moment later and louder: their collectives time out or lose a peer. Order:

0. the rendezvous port is taken (Paddle then aborts without a word)
1. the earliest of: an exception that does not come from a collective, a death by a signal that cannot be a symptom
   (SIGKILL, SIGSEGV ...)
2. a rank that ended badly without saying why
3. a node that failed as a whole: it did not start in time, its launcher or its agent died
4. a rank that left with 0 before its work was done
5. the earliest failed collective
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from configs.errors import Exit
from launcher.protocol import RootCause

HARD_SIGNALS = frozenset(
    (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGXFSZ)
)
SIGNAL_MEANINGS = {
    signal.SIGSEGV: "invalid memory access in native code",
    signal.SIGBUS: "a memory-mapped file was cut short, or /dev/shm is full",
    signal.SIGABRT: "native code gave up",
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGFPE: "division by zero in native code",
    signal.SIGTERM: "by something outside this launcher",
    signal.SIGXCPU: "the CPU time limit (ulimit -t) is reached",
    signal.SIGXFSZ: "the file size limit (ulimit -f) is reached",
}
MEMORY_HINT = "lower micro_batch (the batch is then accumulated) or max_length, then ./run.sh resume {name}"
_COLLECTIVE = re.compile(
    r"gloo|nccl|TCPStore|tcp_store|tcp_utils|ProcessGroup|all_?reduce|all_?gather|broadcast|Connection (reset|closed|refused)"
    r"|Socket Timeout|peer",
    re.IGNORECASE,
)
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)\b.*")
_TRACEBACK = "Traceback (most recent call last):"


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


@dataclass(frozen=True)
class NodeFailure:
    """Why a node failed as a whole."""

    kind: str
    """prepare | launcher | startup | port | agent | hang."""
    what: str
    t: float
    exit_code: int
    hint: str = ""
    rank: int | None = None
    phase: str = ""
    detail: str = ""
    log: str = ""


@dataclass(frozen=True)
class NodeEnd:
    """The last word of an agent."""

    node: int
    reason: str
    """finished | stopped | failed | killed."""
    ranks: tuple[RankEnd, ...] = ()
    failure: NodeFailure | None = None

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
            failure=None if failure is None else NodeFailure(**failure),
        )


@dataclass(frozen=True)
class _Candidate:
    order: int
    t: float
    cause: RootCause = field(compare=False)


def choose(ends: Sequence[NodeEnd], run_name: str = "RUN") -> RootCause | None:
    """The root cause of these ends; None when every rank did what it was asked to."""
    candidates = [found for end in ends for rank in end.ranks if (found := _of_rank(rank)) is not None]
    candidates += [
        _Candidate(0 if end.failure.kind == "port" else 3, end.failure.t, _of_node(end, end.failure))
        for end in ends
        if end.failure is not None
    ]
    if not candidates:
        return None
    cause = min(candidates, key=lambda candidate: (candidate.order, candidate.t)).cause
    hint = cause.hint.format(name=run_name) if "{name}" in cause.hint else cause.hint
    return RootCause(**{**asdict(cause), "hint": hint})


def _of_rank(end: RankEnd) -> _Candidate | None:
    if end.error is not None:
        collective = bool(end.error.get("collective"))
        return _Candidate(5 if collective else 1, float(end.error.get("t") or end.t), _of_error(end, end.error))
    if end.stopped_by_agent or end.returncode == Exit.PREEMPTED:
        return None
    if end.returncode == 0:
        return None if end.finished else _Candidate(4, end.t, _early_exit(end))
    if end.signal in HARD_SIGNALS:
        return _Candidate(1, end.t, _of_signal(end))
    if end.disk_full:
        return _Candidate(1, end.t, _of_full_disk(end))
    symptom = _COLLECTIVE.search(end.log_tail) is not None
    describe: Callable[[RankEnd], RootCause] = _of_signal if end.signal is not None else _of_code
    return _Candidate(5 if symptom else 2, end.t, describe(end))


def _cause(end: RankEnd, what: str, **changes: Any) -> RootCause:
    known: dict[str, Any] = {
        "node": end.node,
        "rank": end.rank,
        "stage": end.stage,
        "step": end.step,
        "phase": end.phase,
        "what": what,
        "traceback": "",
        "exit_code": int(Exit.FAILED),
        "log": end.log,
    }
    return RootCause(**(known | changes))


def _of_error(end: RankEnd, error: Mapping[str, Any]) -> RootCause:
    message = str(error.get("message", "")).strip()
    kind = str(error.get("type", "Exception"))
    first_line = message.splitlines()[0] if message else ""
    user_error = bool(error.get("user_error"))
    code = error.get("exit_code")
    return _cause(
        end,
        message if user_error and message else f"{kind}: {first_line}" if first_line else kind,
        stage=str(error.get("stage") or end.stage),
        step=error["step"] if isinstance(error.get("step"), int) else end.step,
        phase=str(error.get("phase") or end.phase),
        traceback="" if user_error else str(error.get("traceback", "")),
        exit_code=code if isinstance(code, int) and code != 0 else int(Exit.FAILED),
        hint=str(error.get("hint") or ""),
    )


def _of_signal(end: RankEnd) -> RootCause:
    number = end.signal or 0
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        if end.oom_kills:
            return _cause(end, f"killed ({name}) by the kernel's out-of-memory killer", hint=MEMORY_HINT)
        what = f"killed ({name}): possibly the out-of-memory killer, though the kernel counted no such kill; or someone's kill -9"
        return _cause(end, what, hint="./run.sh resume {name}")
    meaning = SIGNAL_MEANINGS.get(signal.Signals(number), "") if name.startswith("SIG") else ""
    verb = "terminated" if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) else "crashed"
    what = f"{verb} ({name})" + (f": {meaning}" if meaning else "")
    return _cause(end, what, traceback=end.log_tail)


def _of_code(end: RankEnd) -> RootCause:
    if end.returncode is None:
        return _cause(end, "vanished: neither an exit code nor a signal was recorded", traceback=end.log_tail)
    traceback = last_traceback(end.log_tail)
    reason = last_exception(end.log_tail)
    known = end.returncode in set(Exit)
    return _cause(
        end,
        reason or f"ended with exit code {end.returncode}",
        traceback=traceback or end.log_tail,
        exit_code=end.returncode if known else int(Exit.FAILED),
    )


def _of_full_disk(end: RankEnd) -> RootCause:
    """A rank that could not even write how it failed."""
    what = "cannot write: the disk of the run directory is full"
    hint = "free some space, then ./run.sh resume {name}"
    return _cause(end, what, traceback=end.log_tail, exit_code=int(Exit.CANNOT_WRITE), hint=hint)


def _early_exit(end: RankEnd) -> RootCause:
    return _cause(
        end, "left with exit code 0 before its work was done, while other ranks still ran", traceback=end.log_tail
    )


def _of_node(end: NodeEnd, failure: NodeFailure) -> RootCause:
    at = next((rank for rank in end.ranks if rank.rank == failure.rank), None)
    return RootCause(
        node=end.node,
        rank=failure.rank,
        stage=at.stage if at else "",
        step=at.step if at else None,
        phase=failure.phase,
        what=failure.what,
        traceback=failure.detail,
        exit_code=failure.exit_code,
        hint=failure.hint,
        log=failure.log,
    )


def last_traceback(text: str) -> str:
    """The last complete Python traceback in a log; empty when there is none."""
    _, found, rest = text.rpartition(_TRACEBACK)
    if not found:
        return ""
    lines = [found]
    for line in rest.splitlines()[1:]:
        lines.append(line)
        if _EXCEPTION_LINE.match(line):
            break
    return "\n".join(lines)


def last_exception(text: str) -> str:
    """The line that names the exception of the last traceback, or of a syntax error; empty when there is none."""
    matches = [line for line in text.splitlines() if _EXCEPTION_LINE.match(line)]
    return matches[-1].strip() if matches else ""
