"""What an agent has while it runs one node's part of one attempt: its spec, its line to the supervisor, the processes
it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.processes import ProcessId, dies_with_me, kill_until_gone, marked
from launcher.attempt_dir import AttemptDirectory
from launcher.channel import LineReader, LineWriter, readable
from launcher.files import write_atomic, write_json
from launcher.shim import AGENT_FILE
from launcher.spec import ATTEMPT_VARIABLE, NodeSpec

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class KillNow(Exception):
    """The supervisor is gone, or wants everything dead at once."""


class NodeSession:
    """One node of one attempt, on the agent's side."""

    def __init__(self, spec: NodeSpec, commands: LineReader, events: LineWriter) -> None:
        self.spec = spec
        self.attempt = AttemptDirectory(Path(spec.run_dir) / "attempts" / f"{spec.attempt:03d}")
        self.directory = self.attempt.node(spec.node)
        self.stop_reason = ""
        self.aborted = False
        self._signal = 0
        self._commands = commands
        self._events = events
        self._children: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        """Makes the node's folder, says who drives it, and kills what an earlier attempt of this run has left on this
        node."""
        self.attempt.make(self.spec.nnodes)
        me = ProcessId.current()
        write_json(self.directory / AGENT_FILE, {"pid": me.pid, "start": me.start})
        for signum in STOP_SIGNALS:
            signal.signal(signum, self._on_signal)
        kill_until_gone(self._left_by_earlier_attempts)

    def _on_signal(self, signum: int, _frame: object) -> None:
        self._signal = signum

    def _left_by_earlier_attempts(self) -> Iterator[ProcessId]:
        """Whoever holds the run's lock knows that no other attempt is meant to run."""
        for identity, marker in marked(ATTEMPT_VARIABLE, f"{self.spec.run_id}/"):
            if marker.split("/")[1] != f"{self.spec.attempt:03d}":
                yield identity

    @property
    def ending(self) -> bool:
        """Nothing more is to be started."""
        return bool(self.stop_reason) or self.aborted

    def emit(self, event: Mapping[str, Any], optional: bool = False) -> None:
        """Sends one event; `optional` ones are dropped while the supervisor does not read. Raises KillNow when it is
        gone."""
        if optional and not self._events.has_room() and not self._events.broken:
            return
        self._events.write({**event, "node": self.spec.node})
        if self._events.broken:
            raise KillNow

    def listen(self, timeout_s: float, *others: int) -> set[int]:
        """Obeys commands that come within the time; returns those of the other descriptors that can be read. Raises
        KillNow."""
        ready = readable((self._commands.fd, *others), timeout_s)
        if self._commands.fd in ready:
            self._obey(self._commands.read())
        if self._signal:
            self.stop(f"{signal.Signals(self._signal).name} to the agent of node {self.spec.node}")
        return ready - {self._commands.fd}

    def _obey(self, commands: Sequence[Mapping[str, Any]]) -> None:
        for command in commands:
            if command.get("cmd") == "stop":
                self.stop(str(command.get("reason") or "stop requested"))
            elif command.get("cmd") == "abort":
                self.aborted = True
            elif command.get("cmd") == "kill":
                raise KillNow
        if self._commands.eof:
            raise KillNow

    def stop(self, reason: str) -> None:
        """Asks the ranks to write a checkpoint at their next step and leave."""
        if not self.stop_reason:
            self.stop_reason = reason
            write_atomic(self.attempt.stop_file, reason.encode())

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], log: str, piped: bool = False
    ) -> subprocess.Popen[bytes]:
        """Starts a program that dies with this agent.

        Its stderr, and its stdout unless `piped`, go to a log of this node. Raises OSError.
        """
        path = self.directory / log
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else handle,
                stderr=handle,
                env={**env, ATTEMPT_VARIABLE: self.spec.marker},
                cwd=self.spec.root,
                start_new_session=True,
                preexec_fn=dies_with_me(),  # noqa: PLW1509  this process has one thread
            )
        finally:
            os.close(handle)
        self._children.append(child)
        return child

    def kill_everything(self, known: Sequence[ProcessId] = ()) -> list[ProcessId]:
        """Kills every process of this node's attempt, and those known. Returns what could not be killed."""

        def alive() -> Iterator[ProcessId]:
            for child in self._children:
                child.poll()
            yield from known
            yield from (identity for identity, _ in marked(ATTEMPT_VARIABLE, self.spec.marker))

        return kill_until_gone(alive)
