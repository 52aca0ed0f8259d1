"""Runs the agent on this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.processes import kill_until_gone, marked
from cluster.transport import AgentProcess
from configs.errors import UnavailableError


class LocalTransport:
    """Every node is this machine."""

    def start(self, node: int, argv: Sequence[str], env: Mapping[str, str], cwd: str, stderr: Path) -> AgentProcess:
        """Starts the program in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        log = os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(f"node {node}: cannot start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)
        return AgentProcess(node, process)

    def sweep(self, node: int, variable: str, prefix: str) -> None:
        """Kills what an agent that died has left here."""
        kill_until_gone(lambda: (identity for identity, _ in marked(variable, prefix)))
