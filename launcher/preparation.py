"""Runs the prepare command before the ranks start, and passes on what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from configs.errors import Exit
from launcher.channel import LineReader
from launcher.ends import NodeFailure
from launcher.environment_vars import prepare_environment
from launcher.files import last_lines
from launcher.node_session import NodeSession
from launcher.root_cause import last_exception

POLL_S = 0.1
LOG = "prepare.log"


def prepare(session: NodeSession) -> NodeFailure | None:
    """Runs the command to its end. None when it succeeded, or when a stop was requested meanwhile. Raises KillNow."""
    spec = session.spec
    env = prepare_environment(os.environ, spec.env, spec.prepare_env_names)
    try:
        child = session.start(spec.prepare_argv, env, LOG, piped=True)
    except OSError as error:
        what = f"cannot start {spec.prepare_argv[0]}: {error.strerror}"
        return NodeFailure("prepare", what, time.time(), int(Exit.INTERNAL), phase="prepare")
    with child.stdout or contextlib.nullcontext() as output:
        last_error = _forward(session, child, LineReader(output.fileno())) if output else {}
    if session.ending or child.returncode == 0:
        return None
    return _failure(child.returncode, last_error, session)


def _forward(session: NodeSession, child: subprocess.Popen[bytes], lines: LineReader) -> Mapping[str, Any]:
    """Passes events on until the command has ended; returns its last error event. A requested stop ends the command."""
    last_error: Mapping[str, Any] = {}
    deadline = None
    while not lines.eof or child.poll() is None:
        fds = () if lines.eof else (lines.fd,)
        if session.listen(POLL_S, *fds):
            for event in lines.read():
                if event.get("type") == "error":
                    last_error = event
                else:
                    session.emit(event)
        if session.ending and deadline is None:
            child.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + session.spec.bounds.kill_grace_s
        if deadline is not None and time.monotonic() > deadline:
            session.kill_everything()
    return last_error


def _failure(returncode: int, error: Mapping[str, Any], session: NodeSession) -> NodeFailure:
    log = session.directory / LOG
    tail = last_lines(log)
    if error:
        code = error.get("exit_code")
        return NodeFailure(
            "prepare",
            str(error.get("message", "")) or "preparation failed",
            time.time(),
            code if isinstance(code, int) and code else int(Exit.FAILED),
            hint=str(error.get("hint") or ""),
            phase="prepare",
            log=str(log) if tail else "",
        )
    ended = f"killed ({signal.Signals(-returncode).name})" if returncode < 0 else f"exit code {returncode}"
    what = f"preparation failed: {last_exception(tail) or ended}"
    code = returncode if returncode in set(Exit) else int(Exit.FAILED)
    return NodeFailure("prepare", what, time.time(), code, phase="prepare", detail=tail, log=str(log))
