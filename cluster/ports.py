"""Free TCP ports, and who holds a taken one. Reads /proc; opens nothing that stays."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

FIRST_PORT, LAST_PORT = 20000, 32000
"""Below 32768, where Linux begins to take the ports of outgoing connections."""
_LISTEN = "0A"


@dataclass(frozen=True)
class Holder:
    """Who listens on a port; pid 0 when the process belongs to someone else."""

    port: int
    pid: int
    command: str

    def __str__(self) -> str:
        if not self.pid:
            return f"port {self.port} is in use by a process of another user"
        return f"port {self.port} is in use by process {self.pid} ({self.command})"


def is_free(port: int) -> bool:
    """Whether a server could bind the port on every address of this machine, as Paddle's store does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return not _listeners(port)


def find_free_block(count: int) -> int:
    """First of `count` consecutive free ports, at a random place so that two launches at once rarely meet. Raises
    OSError when there is none."""
    for _ in range(200 if count < LAST_PORT - FIRST_PORT else 0):
        start = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT - count)
        if all(is_free(port) for port in range(start, start + count)):
            return start
    raise OSError(f"no {count} consecutive free ports between {FIRST_PORT} and {LAST_PORT}")


def holder(port: int) -> Holder | None:
    """The process that listens on the port; None when nothing does."""
    inodes = _listeners(port)
    if not inodes:
        return None
    names = {f"socket:[{inode}]" for inode in inodes}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _has_open(entry, names):
            return Holder(port, int(entry), _command(entry))
    return Holder(port, 0, "")


def _listeners(port: int) -> set[str]:
    """Inodes of the sockets that listen on the port, from /proc/net/tcp and tcp6."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            cells = row.split()
            if cells[3] == _LISTEN and int(cells[1].rpartition(":")[2], 16) == port:
                inodes.add(cells[9])
    return inodes


def _has_open(pid: str, names: set[str]) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") in names for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def _command(pid: str) -> str:
    """Name of the program: never its arguments, which may be private."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"
