"""Runs a job: starts one agent per node, merges what they say, writes the run's history, and decides how it ended.

The caller holds the run's lock. Everything happens in one thread, the main one: signals, pipes of the agents, the
observer.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster import ports
from cluster.local import LocalTransport
from cluster.transport import Transport
from configs.errors import Exit, UnavailableError
from launcher.attempt import Attempt
from launcher.history import History
from launcher.protocol import Observer, Outcome, RootCause
from launcher.root_cause import NodeEnd, choose
from launcher.rundir import RunDirectory
from launcher.spec import LaunchSpec, NodeSpec
from launcher.stop_requests import StopRequests

MAX_PORT_TRIES = 3


def supervise(
    launch: LaunchSpec, run: RunDirectory, observer: Observer | None, transport: Transport | None = None
) -> Outcome:
    """Runs the job to its end and returns how it ended; its exit code is the command's. The caller holds `run.lock()`.

    Raises UserError when the attempt cannot even be set up.
    """
    history = History(run, observer)
    transport = transport or LocalTransport()
    with StopRequests() as stop:
        for tries in range(1, MAX_PORT_TRIES + 1):
            launch = _with_free_port(launch, history)
            attempt = run.next_attempt()
            ends = _run_attempt(launch.node_specs(attempt, run.run_id()), transport, run, history, stop)
            outcome = conclude(ends, stop, attempt, run.path.name)
            history.finish(outcome, last=False)
            if stop.requested or launch.port_fixed or tries == MAX_PORT_TRIES or not _port_was_taken(ends):
                break
            launch = launch.with_port(0)
        history.finish(outcome, last=True)
    return outcome


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


def _port_was_taken(ends: Sequence[NodeEnd]) -> bool:
    return any(end.failure is not None and end.failure.kind == "port" for end in ends)


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
