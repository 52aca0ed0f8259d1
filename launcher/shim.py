"""One per rank, between Paddle's launcher and the worker: keeps the worker's whole output, records its end, leaves no
orphan.

Usage: shim.py WORKER [ARGUMENTS with --attempt-dir DIR --node N]; WORKER is a module name or a file that ends in .py.
Paddle's launcher is a poor judge (it stops all ranks within 3 s of the first that ends, and its own death orphans
them), so the shim

- dies with the launcher, and the worker with the shim (parent-death signal);
- forwards signals to the worker, which runs in a session of its own where the launcher's killpg does not reach;
- keeps its own end back, once it is recorded, until the agent releases the node or is gone. So the agent alone
  decides when other ranks are stopped.

Standard library only: it runs before, and whether or not, Paddle can be imported.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # As a script its own folder comes first on the path, where modules of the launcher could hide the standard library's.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.processes import ProcessId, die_with_parent, dies_with_me
from launcher.files import read_json_object, write_json

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
CANNOT_EXECUTE = 127
HOLD_POLL_S = 0.1
AGENT_FILE = "agent.json"
RELEASE_FILE = "release"


def worker_command(arguments: Sequence[str]) -> list[str]:
    """The worker's argv, run by this interpreter: a file that ends in .py as a script, anything else as a module."""
    worker, *rest = arguments
    target = [worker] if worker.endswith(".py") else ["-m", worker]
    return [sys.executable, *target, *rest]


def start_worker(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts the worker with all output appended to `log` (0600). Raises OSError."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dies_with_me(),  # noqa: PLW1509  this process has one thread
        )
    finally:
        os.close(handle)


def wait_and_forward(worker: subprocess.Popen[bytes]) -> int:
    """Waits for the worker's end and forwards signals to it. Returns subprocess's returncode (negative: signal).
    Signals must be blocked."""
    while worker.poll() is None:
        received = signal.sigwait((signal.SIGCHLD, *FORWARDED))
        if received in FORWARDED:
            worker.send_signal(received)
    return worker.returncode


def hold(directory: Path) -> None:
    """Waits until the agent releases the node, has ended, or a signal comes. Without an agent (a launch by hand)
    returns at once."""
    agent = find_agent(directory)
    while agent is not None and agent.alive() and not (directory / RELEASE_FILE).exists():
        if signal.sigtimedwait(FORWARDED, HOLD_POLL_S) is not None:
            return


def find_agent(directory: Path) -> ProcessId | None:
    """The agent that drives this node, alive or not; None for a launch by hand."""
    agent = read_json_object(directory / AGENT_FILE)
    return None if agent is None else ProcessId(int(agent["pid"]), int(agent["start"]))


def run(arguments: Sequence[str], rank: int) -> int:
    """Runs the worker of this rank to its end and returns the exit code for Paddle's launcher."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--attempt-dir", type=Path, required=True)
    parser.add_argument("--node", type=int, required=True)
    options, _ = parser.parse_known_args(arguments)
    directory: Path = options.attempt_dir / f"node-{options.node}"
    agent = find_agent(directory)
    if agent is not None and not agent.alive():
        # The whole chain above died before this process could ask to die with it.
        return 128 + signal.SIGKILL
    identity = ProcessId.current()
    worker = start_worker(worker_command(arguments), directory / f"rank-{rank}.log")
    child = ProcessId.of(worker.pid)
    start = {
        "shim_pid": identity.pid,
        "shim_start": identity.start,
        "pid": worker.pid,
        "start": child.start if child else 0,
    }
    write_json(directory / f"rank-{rank}.start.json", {"rank": rank, "node": options.node, "t": time.time(), **start})
    status = wait_and_forward(worker)
    end = {"returncode": status if status >= 0 else None, "signal": -status if status < 0 else None}
    write_json(
        directory / f"rank-{rank}.exit.json",
        {"rank": rank, "node": options.node, "pid": worker.pid, "t": time.time(), **end},
    )
    hold(directory)
    return status if status >= 0 else 128 - status


def main() -> int:
    """Entry point: rank from Paddle's environment, worker from the command line."""
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, *FORWARDED))
    die_with_parent(parent)
    os.umask(0o077)
    try:
        return run(sys.argv[1:], int(os.environ.get("PADDLE_TRAINER_ID", "0")))
    except OSError as error:
        print(f"shim: {error}", file=sys.stderr, flush=True)
        return CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main())
