"""One attempt: an agent on every node, from their start to the last word of the last one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.transport import AgentProcess, Transport
from configs.errors import Exit, UnavailableError
from launcher.channel import LineReader, readable
from launcher.ends import NodeEnd, NodeFailure
from launcher.environment_vars import agent_environment
from launcher.files import last_lines
from launcher.history import History
from launcher.root_cause import last_exception
from launcher.rundir import AttemptDirectory, RunDirectory
from launcher.spec import ATTEMPT_VARIABLE, NodeSpec
from launcher.stop_requests import StopRequests

POLL_S = 0.2
AGENT_EXIT_S = 10.0
LAST_WORD_S = 15.0
"""From a `kill` or `abort` to the agent's last word, beside the bounds of the spec; then the agent itself is killed."""
AGENT_LOG = "agent.log"


class _Node:
    """The supervisor's side of one agent."""

    def __init__(self, spec: NodeSpec, agent: AgentProcess) -> None:
        self.spec = spec
        self.agent = agent
        self.reader = LineReader(agent.stdout_fd())
        self.end: NodeEnd | None = None
        self.deadline: float | None = None

    def tell(self, command: str, reason: str, bound_s: float | None = None) -> None:
        """Sends a command; with `bound_s` the agent must end within it."""
        self.agent.send(json.dumps({"cmd": command, "reason": reason}))
        if bound_s is not None:
            self.deadline = min(self.deadline or float("inf"), time.monotonic() + bound_s)


class Attempt:
    """Runs the agents of one attempt."""

    def __init__(
        self, specs: Sequence[NodeSpec], transport: Transport, run: RunDirectory, history: History, stop: StopRequests
    ) -> None:
        self._specs = specs
        self._transport = transport
        self._directory: AttemptDirectory = run.attempt(specs[0].attempt)
        self._history = history
        self._stop = stop
        self._nodes: list[_Node] = []
        self._told: set[str] = set()

    def run(self) -> tuple[NodeEnd, ...]:
        """Until every agent has ended. Always leaves no process. Raises CannotWriteError before anything is started."""
        self._directory.make(len(self._specs))
        try:
            unreachable = self._start_agents()
            if unreachable is not None:
                self._abort(f"node {unreachable.node} cannot be reached")
            while any(node.end is None for node in self._nodes):
                self._step()
        finally:
            for node in self._nodes:
                self._close(node)
        ends = [node.end for node in self._nodes if node.end is not None]
        return tuple(ends if unreachable is None else [*ends, unreachable])

    def _start_agents(self) -> NodeEnd | None:
        for spec in self._specs:
            env = agent_environment(os.environ, spec.root, spec.prepare_env_names)
            log = self._directory.node(spec.node) / AGENT_LOG
            argv = (sys.executable, "-m", "launcher.agent")
            try:
                agent = self._transport.start(spec.node, argv, env, spec.root, log)
            except UnavailableError as error:
                failure = NodeFailure("agent", error.message, time.time(), int(error.code), hint=error.hint)
                return NodeEnd(spec.node, "failed", failure=failure)
            self._nodes.append(_Node(spec, agent))
            agent.send(spec.to_json())
        return None

    def _step(self) -> None:
        running = {node.reader.fd: node for node in self._nodes if node.end is None}
        ready = readable((self._stop.wakeup_fd, *running), POLL_S)
        if self._stop.wakeup_fd in ready:
            self._stop.clear()
        for fd, node in running.items():
            if fd in ready:
                for event in node.reader.read():
                    self._on_event(node, event)
            overdue = node.deadline is not None and time.monotonic() > node.deadline
            if node.end is None and (node.reader.eof or overdue):
                self._on_death(node)
        self._pass_on_requests()
        self._history.tick()

    def _pass_on_requests(self) -> None:
        if self._stop.requested and "stop" not in self._told:
            self._told.add("stop")
            self._history.set_state("stopping", self._stop.reason)
            for node in self._nodes:
                node.tell("stop", self._stop.reason)
        if self._stop.kill and "kill" not in self._told:
            self._told.add("kill")
            for node in self._nodes:
                node.tell("kill", self._stop.reason, LAST_WORD_S)

    def _abort(self, reason: str) -> None:
        """One node cannot go on: the others are stopped and say how they ended."""
        if "abort" not in self._told:
            self._told.add("abort")
            for node in self._nodes:
                bounds = node.spec.bounds
                node.tell("abort", reason, bounds.peer_grace_s + bounds.kill_grace_s + LAST_WORD_S)

    def _on_event(self, node: _Node, event: Mapping[str, Any]) -> None:
        if event.get("type") == "ended":
            node.end = NodeEnd.from_json(event)
            if node.end.reason not in ("finished", "stopped"):
                self._abort(f"node {node.spec.node} failed")
            return
        if event.get("type") in ("rank", "heartbeats") and self._history.state == "preparing":
            self._history.set_state("running")
        self._history.add(event)

    def _on_death(self, node: _Node) -> None:
        """The agent is gone, or does not answer, without a last word."""
        if not node.reader.eof:
            node.agent.process.kill()
        status = node.agent.close(AGENT_EXIT_S)
        self._transport.sweep(node.spec.node, ATTEMPT_VARIABLE, node.spec.marker)
        log = self._directory.node(node.spec.node) / AGENT_LOG
        tail = last_lines(log)
        ended = (
            f"was killed ({signal.Signals(-status).name})"
            if status is not None and status < 0
            else "ended without a word"
        )
        reason = last_exception(tail)
        what = f"the agent of node {node.spec.node} {ended}" + (f": {reason}" if reason else "")
        failure = NodeFailure("agent", what, time.time(), int(Exit.UNAVAILABLE), detail=tail, log=str(log))
        node.end = NodeEnd(node.spec.node, "killed" if self._stop.kill else "failed", failure=failure)
        self._abort(what)

    def _close(self, node: _Node) -> None:
        node.agent.close(AGENT_EXIT_S)
        if node.end is None:
            self._transport.sweep(node.spec.node, ATTEMPT_VARIABLE, node.spec.marker)
