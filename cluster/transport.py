"""The way to start a program on a node and to talk to it. Every transport is a program with pipes: a local process,
ssh, srun."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class AgentProcess:
    """A started agent. Its stdout is read by file descriptor; closing its stdin tells it that nobody is left."""

    node: int
    process: subprocess.Popen[bytes]

    def stdout_fd(self) -> int:
        """File descriptor of the agent's output. Raises ValueError for a process started without pipes."""
        if self.process.stdout is None:
            raise ValueError("an agent is started with pipes")
        return self.process.stdout.fileno()

    def send(self, line: str) -> bool:
        """Writes one line to the agent. False when it is gone."""
        if self.process.stdin is None:
            return False
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            return True
        except (OSError, ValueError):
            return False

    def close(self, timeout_s: float) -> int | None:
        """Closes the pipes and waits for the end; SIGKILL after `timeout_s`. Returns the exit status (negative:
        signal)."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(timeout_s)


class Transport(Protocol):
    """Starts agents on nodes."""

    def start(self, node: int, argv: Sequence[str], env: Mapping[str, str], cwd: str, stderr: Path) -> AgentProcess:
        """Starts the program on a node, its stderr appended to a local file. Raises UnavailableError when the node
        cannot be reached."""

    def sweep(self, node: int, variable: str, prefix: str) -> None:
        """Kills what an agent that died has left on its node: processes whose environment `variable` starts with
        `prefix`."""
