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
from dataclasses import dataclass, field, replace
from typing import Any

from configs.errors import Exit
from launcher.ends import NodeEnd, NodeFailure, RankEnd
from launcher.error_kinds import DISK_HINT, HINTS, MEMORY_HINT, RESUME_HINT, kind_of_error, kind_of_text
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
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)\b.*")
_TRACEBACK = "Traceback (most recent call last):"


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
    details = (*cause.details, *_memory_lines(cause, ends), *_other_ranks(cause, ends))
    return replace(cause, hint=cause.hint.replace("{name}", run_name), details=details)


def _memory_lines(cause: RootCause, ends: Sequence[NodeEnd]) -> list[str]:
    """Memory numbers, where they can explain the end."""
    if cause.kind not in ("killed", "memory"):
        return []
    node = next((end for end in ends if end.node == cause.node), None)
    rank = next((each for each in node.ranks if each.rank == cause.rank), None) if node else None
    held = f"rank {cause.rank} held {rank.rss_bytes / 1e9:.1f} GB; " if rank and rank.rss_bytes else ""
    return [f"memory: {held}{node.memory}"] if node and node.memory else []


def _other_ranks(cause: RootCause, ends: Sequence[NodeEnd]) -> list[str]:
    """All other ranks that did not end well, as one line: they ended because of the root cause."""
    others = [
        rank.rank
        for end in ends
        for rank in end.ranks
        if rank.rank != cause.rank and not (rank.returncode == 0 and rank.finished)
    ]
    if not others:
        return []
    by = f"rank {cause.rank}" if cause.rank is not None else f"node {cause.node}"
    return [f"{'rank' if len(others) == 1 else 'ranks'} {_ranges(sorted(others))}: stopped because of {by}"]


def _ranges(numbers: Sequence[int]) -> str:
    """`0, 2-5, 7`."""
    groups: list[list[int]] = []
    for number in numbers:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return ", ".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups)


def _of_rank(end: RankEnd) -> _Candidate | None:
    if end.error is not None:
        return _Candidate(
            5 if kind_of_error(end.error) == "peer" else 1,
            float(end.error.get("t") or end.t),
            _of_error(end, end.error),
        )
    if end.stopped_by_agent or end.returncode == Exit.PREEMPTED:
        return None
    if end.returncode == 0:
        return None if end.finished else _Candidate(4, end.t, _early_exit(end))
    if end.signal in HARD_SIGNALS:
        return _Candidate(1, end.t, _of_signal(end))
    if end.disk_full:
        return _Candidate(1, end.t, _of_full_disk(end))
    symptom = kind_of_text(end.log_tail) == "peer"
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
    code, end_kind = error.get("exit_code"), kind_of_error(error)
    samples = error.get("samples")
    text = samples.get("text") if isinstance(samples, Mapping) and not user_error else None
    of_disk = end_kind == "disk" and not user_error
    return _cause(
        end,
        message if user_error and message else f"{kind}: {first_line}" if first_line else kind,
        stage=str(error.get("stage") or end.stage),
        step=error["step"] if isinstance(error.get("step"), int) else end.step,
        phase=str(error.get("phase") or end.phase),
        traceback="" if user_error else str(error.get("traceback", "")),
        exit_code=int(Exit.CANNOT_WRITE) if of_disk else code if isinstance(code, int) and code else int(Exit.FAILED),
        hint=str(error.get("hint") or "") or HINTS.get(end_kind, ""),
        kind=end_kind,
        details=(f"in work: {text}",) if text else (),
    )


def _of_signal(end: RankEnd) -> RootCause:
    number = end.signal or 0
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        if end.oom_kills:
            what = f"killed ({name}) by the kernel's out-of-memory killer"
            return _cause(end, what, hint=MEMORY_HINT, kind="memory")
        what = f"killed ({name}): possibly the out-of-memory killer, though the kernel counted no such kill; or someone's kill -9"
        return _cause(end, what, hint=RESUME_HINT, kind="killed")
    meaning = SIGNAL_MEANINGS.get(signal.Signals(number), "") if name.startswith("SIG") else ""
    verb = "terminated" if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) else "crashed"
    what = f"{verb} ({name})" + (f": {meaning}" if meaning else "")
    return _cause(
        end, what, traceback=end.native or end.log_tail, **_kind_of_end(end, verb.replace("crashed", "crash"))
    )


def _kind_of_end(end: RankEnd, otherwise: str) -> dict[str, str]:
    """Kind and hint of an end without an error record, by the last lines of its log."""
    kind = kind_of_text(end.log_tail)
    return {"kind": kind, "hint": HINTS[kind]} if kind else {"kind": otherwise}


def _of_code(end: RankEnd) -> RootCause:
    if end.returncode is None:
        what = "vanished: neither an exit code nor a signal was recorded"
        return _cause(end, what, traceback=end.log_tail, kind="killed")
    traceback = last_traceback(end.log_tail)
    reason = last_exception(end.log_tail)
    known = end.returncode in set(Exit)
    return _cause(
        end,
        reason or f"ended with exit code {end.returncode}",
        traceback=traceback or end.log_tail,
        exit_code=end.returncode if known else int(Exit.FAILED),
        **_kind_of_end(end, "error" if traceback or reason else "exit"),
    )


def _of_full_disk(end: RankEnd) -> RootCause:
    """A rank that could not even write how it failed."""
    what = "cannot write: the disk of the run directory is full"
    code = int(Exit.CANNOT_WRITE)
    return _cause(end, what, traceback=end.log_tail, exit_code=code, hint=DISK_HINT, kind="disk")


def _early_exit(end: RankEnd) -> RootCause:
    what = "left with exit code 0 before its work was done, while other ranks still ran"
    return _cause(end, what, traceback=end.log_tail, kind="early_exit")


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
        kind=failure.kind,
        details=tuple(failure.details),
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
