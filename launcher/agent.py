"""Runs one node's part of one attempt: `python -m launcher.agent`.

The first line of stdin is a NodeSpec, later ones are commands; events go to stdout (launcher/protocol.py). When stdin
ends, the supervisor is gone: everything that was started here is killed. If the agent itself is killed, everything
dies with it, since each process has asked the kernel for a signal at its parent's death.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from configs.errors import Exit, UserError
from launcher.channel import LineReader, LineWriter
from launcher.ends import NodeEnd, NodeFailure
from launcher.node_session import KillNow, NodeSession
from launcher.preparation import prepare
from launcher.rank_group import RankGroup, check_port
from launcher.spec import NodeSpec

MAX_SPEC_BYTES = 2**20


def run_node(session: NodeSession) -> NodeEnd:
    """Prepares, starts and watches this node's ranks. Raises KillNow, OSError, UserError."""
    session.open()
    spec = session.spec
    failure = prepare(session) if spec.prepare_argv else None
    if failure is None and not session.ending:
        failure = check_port(session)
    if failure is not None:
        return NodeEnd(spec.node, "failed", failure=failure)
    if session.ending:
        return NodeEnd(spec.node, "stopped")
    return RankGroup(session).run()


def run(session: NodeSession) -> int:
    """Runs the node, reports how it ended, and leaves no process."""
    node = session.spec.node
    try:
        end = run_node(session)
    except KillNow:
        end = NodeEnd(node, "killed")
    except (OSError, UserError) as error:
        code = int(error.code) if isinstance(error, UserError) else int(Exit.CANNOT_WRITE)
        what = error.message if isinstance(error, UserError) else f"{error.filename or 'agent'}: {error.strerror}"
        end = NodeEnd(node, "failed", failure=NodeFailure("agent", what, time.time(), code))
    finally:
        left = session.kill_everything()
    for identity in left:
        print(f"agent: process {identity.pid} could not be killed", file=sys.stderr)
    try:
        session.emit(end.to_json())
    except KillNow:
        return int(Exit.FAILED)
    return 0


def read_first_line(fd: int) -> str:
    """The spec: read byte by byte, so that nothing of the commands behind it is taken. Raises ValueError when it
    never ends."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte or len(line) > MAX_SPEC_BYTES:
            raise ValueError("no spec on stdin")
        line += byte
    return line.decode()


def main() -> int:
    """Entry point."""
    os.umask(0o077)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        spec = NodeSpec.from_json(read_first_line(0))
    except (ValueError, TypeError, KeyError) as error:
        print(f"launcher.agent: is started by the launcher, with a node's spec on stdin ({error})", file=sys.stderr)
        return int(Exit.USAGE)
    return run(NodeSession(spec, LineReader(0), LineWriter(1)))


if __name__ == "__main__":
    sys.exit(main())
