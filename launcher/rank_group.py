"""Starts Paddle's launcher for the ranks of one node, watches them to their end, and leaves no process behind."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time

from cluster import ports
from cluster.memory import describe_memory
from cluster.processes import ProcessId, oom_kills
from configs.errors import Exit
from launcher.ends import NodeEnd, NodeFailure
from launcher.files import last_lines, write_atomic
from launcher.node_session import NodeSession
from launcher.ranks import RankWatch
from launcher.root_cause import last_exception, last_traceback
from launcher.shim import RELEASE_FILE
from launcher.watchdog import Watchdog

POLL_S = 0.1
HEARTBEATS_S = 0.5
LAUNCHER_EXIT_S = 4.0
LOG = "launch.log"
_PORT_TAKEN = re.compile(r"uv__finish_close|EADDRINUSE|address already in use", re.IGNORECASE)


def check_port(session: NodeSession) -> NodeFailure | None:
    """Whether the rendezvous port of the first rank, which Paddle's store will bind, is free on this node."""
    spec = session.spec
    if spec.first_rank != 0 or spec.nproc * spec.nnodes == 1 or ports.is_free(spec.start_port):
        return None
    return _port_failure(str(ports.holder(spec.start_port) or f"port {spec.start_port} cannot be bound"))


def _port_failure(what: str) -> NodeFailure:
    hint = "choose another port, or leave it out to have a free one chosen"
    return NodeFailure("port", what, time.time(), int(Exit.UNAVAILABLE), hint=hint, phase="rendezvous")


class RankGroup:
    """The ranks of one node during one attempt."""

    def __init__(self, session: NodeSession) -> None:
        self._session = session
        self._bounds = session.spec.bounds
        self.ranks = [RankWatch(session.attempt, session.spec.node, rank) for rank in session.spec.ranks]
        self._watchdog = Watchdog(self._bounds, session.attempt, session.spec.node, self.ranks)
        self._oom_kills_before = oom_kills()
        self._launcher: subprocess.Popen[bytes] | None = None
        self._log = session.directory / LOG
        self._next_heartbeats = 0.0
        self._started_at = time.monotonic()
        self._stopping_since: float | None = None
        self._first_exit_at: float | None = None

    def run(self) -> NodeEnd:
        """From the start of the launcher to the end of the last process. Raises KillNow."""
        spec = self._session.spec
        try:
            self._launcher = self._session.start(spec.argv, spec.env, LOG)
        except OSError as error:
            what = f"cannot start {spec.argv[0]}: {error.strerror}"
            failed = NodeFailure("start", what, time.time(), int(Exit.FAILED), phase="launch", log=str(self._log))
            return NodeEnd(spec.node, "failed", failure=failed)
        failure = self._watch()
        self._stop_ranks()
        return self._end(failure)

    def known_processes(self) -> list[ProcessId]:
        """Shims and workers by pid and start time."""
        return [identity for rank in self.ranks for identity in (rank.shim, rank.worker) if identity is not None]

    def _watch(self) -> NodeFailure | None:
        """Until every rank has ended, or the grace after a failure or a stop request is over."""
        failure: NodeFailure | None = None
        trouble_at: float | None = None
        while not all(rank.ended for rank in self.ranks):
            self._session.listen(POLL_S)
            self._poll()
            now = time.monotonic()
            if trouble_at is None:
                failure = self._find_failure(now)
                if failure is not None or self._rank_failed(now):
                    trouble_at = now
                    failure = failure or (None if self._session.aborted else self._watchdog.blame_silent(now))
            if trouble_at is not None and (failure is not None or now - trouble_at > self._bounds.peer_grace_s):
                break
            if self._stop_is_over(now):
                break
        return failure

    def _poll(self) -> None:
        for rank in self.ranks:
            was_ended = rank.ended
            for record in rank.poll(everything=was_ended):
                self._session.emit({"type": "rank", "record": {"rank": rank.rank, **record}})
            if rank.ended and not was_ended:
                self._on_exit(rank)
        if time.monotonic() >= self._next_heartbeats:
            self._next_heartbeats = time.monotonic() + HEARTBEATS_S
            self._session.emit({"type": "heartbeats", "ranks": [rank.view() for rank in self.ranks]}, optional=True)

    def _on_exit(self, rank: RankWatch) -> None:
        self._first_exit_at = self._first_exit_at or time.monotonic()
        end = rank.exit or {"returncode": None, "signal": None, "t": rank.lost_at}
        self._session.emit({"type": "rank_exit", **end, "rank": rank.rank})
        if rank.returncode == Exit.PREEMPTED and not rank.stopped_by_agent:
            self._session.stop(f"rank {rank.rank} was asked to stop")

    def _find_failure(self, now: float) -> NodeFailure | None:
        """A failure of the node as a whole: its launcher is gone, or the ranks do not get going."""
        if self._launcher is not None and self._launcher.poll() is not None:
            self._poll()
            if not all(rank.ended and not rank.lost_at for rank in self.ranks):
                return self._launcher_ended(self._launcher.returncode)
        late = self._late_start() if now - self._started_at > self._bounds.startup_timeout_s else None
        return late or self._watchdog.find_hang(now)

    def _rank_failed(self, now: float) -> bool:
        if self._session.aborted or any(rank.failed for rank in self.ranks):
            return True
        waited = self._first_exit_at is not None and now - self._first_exit_at > self._bounds.early_exit_s
        return waited and any(rank.left_early for rank in self.ranks)

    def _stop_is_over(self, now: float) -> bool:
        if not self._session.stop_reason:
            return False
        self._stopping_since = self._stopping_since or now
        return now - self._stopping_since > self._bounds.stop_grace_s

    def _launcher_ended(self, status: int) -> NodeFailure | None:
        """None when a rank is to blame: the launcher ends after one that was killed."""
        if status >= 0 and any(rank.failed for rank in self.ranks):
            return None
        tail = last_lines(self._log)
        name = "paddle.distributed.launch"
        if status < 0:
            for rank in self.ranks:
                rank.stopped_by_agent = rank.exit is None
            return self._launcher_failure(f"{name} was killed ({signal.Signals(-status).name})")
        reason = last_exception(tail) or f"exit code {status}"
        return self._launcher_failure(f"{name} ended too early: {reason}", last_traceback(tail) or tail)

    def _launcher_failure(self, what: str, detail: str = "") -> NodeFailure:
        return NodeFailure(
            "launcher", what, time.time(), int(Exit.FAILED), phase="launch", detail=detail, log=str(self._log)
        )

    def _late_start(self) -> NodeFailure | None:
        late = [rank for rank in self.ranks if not rank.has_started]
        if not late:
            return None
        rank = late[0]
        others = f" (and {len(late) - 1} more)" if len(late) > 1 else ""
        what = f"no first step within {self._bounds.startup_timeout_s:.0f} s: still in phase '{rank.phase}'{others}"
        return NodeFailure(
            "startup",
            what,
            time.time(),
            int(Exit.UNAVAILABLE),
            hint="raise launch.startup_timeout_s if this phase may take longer",
            rank=rank.rank,
            phase=rank.phase,
            log=str(self._session.attempt.log(self._session.spec.node, rank.rank)),
        )

    def _stop_ranks(self) -> None:
        """SIGTERM to what still runs, SIGKILL after the grace. The ends that follow are this agent's doing."""
        running = [rank for rank in self.ranks if not rank.ended]
        for rank in running:
            rank.stopped_by_agent = True
            if rank.shim is not None:
                rank.shim.send(signal.SIGTERM)
        deadline = time.monotonic() + self._bounds.kill_grace_s
        while not all(rank.ended for rank in running) and time.monotonic() < deadline:
            self._session.listen(POLL_S)
            self._poll()
        if not all(rank.ended for rank in running):
            self._session.kill_everything(self.known_processes())

    def _end(self, failure: NodeFailure | None) -> NodeEnd:
        """Reads the last words, lets Paddle's launcher end if all went well (else it takes seconds to stop what is
        gone), sweeps."""
        self._poll()
        write_atomic(self._session.directory / RELEASE_FILE, b"")
        well = failure is None and all(rank.returncode == 0 for rank in self.ranks)
        deadline = time.monotonic() + (LAUNCHER_EXIT_S if well else 0)
        while self._launcher is not None and self._launcher.poll() is None and time.monotonic() < deadline:
            self._session.listen(POLL_S)
        self._session.kill_everything(self.known_processes())
        counted = oom_kills() - self._oom_kills_before
        failure = failure or self._port_conflict()
        ends = tuple(rank.end(counted) for rank in self.ranks)
        self._remove_empty_files()
        return NodeEnd(self._session.spec.node, self._reason(failure), ends, failure, describe_memory())

    def _remove_empty_files(self) -> None:
        """Those that the ranks open for stacks that were never written."""
        attempt, node = self._session.attempt, self._session.spec.node
        for rank in self.ranks:
            for path in (attempt.native(rank.rank), attempt.stacks(node, rank.rank)):
                with contextlib.suppress(OSError):
                    if path.stat().st_size == 0:
                        path.unlink()

    def _port_conflict(self) -> NodeFailure | None:
        """The port was taken between the check and the rendezvous: Paddle's store then aborts without naming the
        reason."""
        first = self.ranks[0]
        if first.rank != 0 or first.has_started or not first.failed:
            return None
        port = self._session.spec.start_port
        holder = ports.holder(port)
        taken = _PORT_TAKEN.search(last_lines(self._session.attempt.log(self._session.spec.node, 0)))
        if taken is None and holder is None:
            return None
        return _port_failure(str(holder or f"port {port} was in use"))

    def _reason(self, failure: NodeFailure | None) -> str:
        if failure is not None or any(
            rank.failed or rank.left_early for rank in self.ranks if not rank.stopped_by_agent
        ):
            return "failed"
        codes = {rank.returncode for rank in self.ranks}
        if codes == {0}:
            return "finished"
        return "stopped" if self._session.stop_reason else "failed"
