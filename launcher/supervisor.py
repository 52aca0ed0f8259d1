"""Runs a job: starts one agent per node, merges what they say, writes the run's history, decides how it ended and
whether it is started again.

The caller holds the run's lock. Everything happens in one thread, the main one: signals, pipes of the agents, the
observer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from cluster import ports
from cluster.local import LocalTransport
from cluster.transport import Transport
from configs.errors import Exit, UnavailableError
from launcher.attempt import Attempt
from launcher.channel import readable
from launcher.committed import committed, finished_stages
from launcher.ends import NodeEnd
from launcher.history import History
from launcher.protocol import Observer, Outcome, RootCause
from launcher.restart_policy import Failure, decide
from launcher.root_cause import choose
from launcher.rundir import RunDirectory
from launcher.spec import LaunchSpec, NodeSpec
from launcher.stop_requests import StopRequests

MAX_PORT_TRIES = 3
PAUSE_POLL_S = 0.2


def supervise(
    launch: LaunchSpec, run: RunDirectory, observer: Observer | None, transport: Transport | None = None
) -> Outcome:
    """Runs the job to its end, over as many attempts as the policy allows, and returns how it ended; its exit code is the
    command's. The caller holds `run.lock()`.

    Raises UserError when the attempt cannot even be set up.
    """
    history = History(run, observer)
    with StopRequests(launch.time_limit_s, launch.bounds.stop_grace_s) as stop:
        outcome = _Supervision(launch, transport or LocalTransport(), run, history, stop).run()
        history.finish(outcome, last=True)
    return outcome


class _Supervision:
    """The attempts of one launch."""

    def __init__(
        self, launch: LaunchSpec, transport: Transport, run: RunDirectory, history: History, stop: StopRequests
    ) -> None:
        self._launch = launch
        self._transport = transport
        self._run = run
        self._history = history
        self._stop = stop
        self._failures: list[Failure] = []
        self._taken_ports = 0

    def run(self) -> Outcome:
        """Attempt after attempt, until one does not fail or the policy allows no other."""
        while True:
            self._launch = _with_free_port(self._launch, self._history)
            attempt = self._run.next_attempt()
            nodes = self._launch.node_specs(attempt, self._run.run_id())
            ends = _run_attempt(nodes, self._transport, self._run, self._history, self._stop)
            outcome = conclude(ends, self._stop, attempt, self._run.path.name)
            self._history.finish(outcome, last=False)
            if outcome.state != "failed" or self._stop.requested:
                return outcome
            if self._port_was_taken(ends):
                self._launch = self._launch.with_port(0)
                continue
            end = self._after_failure(outcome)
            if end is not None:
                return end

    def _port_was_taken(self, ends: Sequence[NodeEnd]) -> bool:
        """Another port is worth a try at once."""
        taken = any(end.failure is not None and end.failure.kind == "port" for end in ends)
        self._taken_ports += taken
        return taken and not self._launch.port_fixed and self._taken_ports < MAX_PORT_TRIES

    def _after_failure(self, outcome: Outcome) -> Outcome | None:
        """How the run ends after a failed attempt; None when there is to be another one, after its pause."""
        cause = outcome.root_cause
        if cause is None:
            return outcome
        self._launch = self._launch.continued(finished_stages(self._run.path), self._history.last_checkpoint)
        if self._launch.is_complete:
            self._history.message(f"the failure came after everything was saved: {cause.line()}")
            return Outcome("finished", int(Exit.DONE), attempt=outcome.attempt)
        saved = committed(self._run.path, self._launch)
        self._failures.append(Failure(cause, saved, outcome.attempt))
        decision = decide(self._launch.restart, self._failures)
        if not decision.restart:
            code = outcome.exit_code if decision.exit_code is None else decision.exit_code
            return replace(outcome, exit_code=code, root_cause=replace(cause, exit_code=code), note=decision.reason)
        self._history.restart(outcome.attempt + 1, decision.reason, decision.delay_s, saved[1])
        if self._pause(decision.delay_s):
            return None
        return Outcome("stopped", int(Exit.PREEMPTED) if any(saved) else self._stop.exit_code, attempt=outcome.attempt)

    def _pause(self, seconds: float) -> bool:
        """Waits before a restart; false as soon as a stop is asked for."""
        until = time.monotonic() + seconds
        while not self._stop.requested and time.monotonic() < until:
            readable((self._stop.wakeup_fd,), min(PAUSE_POLL_S, max(0.0, until - time.monotonic())))
            self._stop.clear()
            self._history.tick()
        return not self._stop.requested


def run_attempt(
    nodes: Sequence[NodeSpec], transport: Transport, run: RunDirectory, observer: Observer | None
) -> Outcome:
    """Runs a single attempt. The caller holds `run.lock()`."""
    with StopRequests() as stop:
        ends = _run_attempt(nodes, transport, run, History(run, observer), stop)
        return conclude(ends, stop, nodes[0].attempt, run.path.name)


def _run_attempt(
    nodes: Sequence[NodeSpec], transport: Transport, run: RunDirectory, history: History, stop: StopRequests
) -> tuple[NodeEnd, ...]:
    shapes = [{"node": n.node, "host": n.host, "nproc": n.nproc, "first_rank": n.first_rank} for n in nodes]
    history.begin_attempt(nodes[0].attempt, {"start_port": nodes[0].start_port, "nodes": shapes})
    return Attempt(nodes, transport, run, history, stop).run()


def _with_free_port(launch: LaunchSpec, history: History) -> LaunchSpec:
    """Takes another port than the planned one when that is no longer free and the user did not choose it."""
    if launch.port_fixed or (launch.start_port and ports.is_free(launch.start_port)):
        return launch
    try:
        port = ports.find_free_block(max(shape.nproc for shape in launch.nodes))
    except OSError as error:
        raise UnavailableError(str(error), "end other jobs on this machine") from error
    if launch.start_port:
        history.message(
            f"{ports.holder(launch.start_port) or f'port {launch.start_port} is in use'}; using {port}", "info"
        )
    return launch.with_port(port)


def conclude(ends: Sequence[NodeEnd], stop: StopRequests, attempt: int, run_name: str) -> Outcome:
    """How the attempt ended, from the last word of every agent."""
    if all(end.reason == "finished" for end in ends):
        return Outcome("finished", int(Exit.DONE), attempt=attempt)
    cause = choose(ends, run_name)
    if cause is None or stop.kill:
        if stop.requested or any(end.reason == "stopped" for end in ends):
            codes = {rank.returncode for end in ends for rank in end.ranks}
            saved = Exit.PREEMPTED in codes and codes <= {Exit.PREEMPTED, Exit.DONE}
            return Outcome("stopped", int(Exit.PREEMPTED) if saved else stop.exit_code, attempt=attempt)
        cause = RootCause(
            None, None, "", None, "", "ended without a reason that could be found", "", int(Exit.INTERNAL)
        )
    return Outcome("failed", cause.exit_code, cause, attempt)
