"""What an error's text says about its cause: no memory, no disk, a lost peer, a lost connection, or the program itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from configs.errors import Exit

COLLECTIVE = re.compile(
    r"gloo|nccl|TCPStore|tcp_store|tcp_utils|ProcessGroup|all_?reduce|all_?gather|broadcast|Connection (reset|closed|refused)"
    r"|Socket Timeout|peer",
    re.IGNORECASE,
)
MEMORY_HINT = "lower micro_batch (the batch is then accumulated) or max_length, then ./run.sh resume {name}"
DISK_HINT = "free some space, then ./run.sh resume {name}"
RESUME_HINT = "./run.sh resume {name}"
_SIGNS = (
    (
        "memory",
        re.compile(
            r"ResourceExhausted|out of memory|OutOfMemory|CUDA error\(2\)|\bMemoryError\b|bad_alloc", re.IGNORECASE
        ),
    ),
    (
        "disk",
        re.compile(
            r"No space left on device|\[Errno (28|122|30)\]|Disk quota exceeded|Read-only file system", re.IGNORECASE
        ),
    ),
)
_CONNECTION_TYPES = frozenset(
    (
        "ConnectionError",
        "ConnectionResetError",
        "ConnectionRefusedError",
        "ConnectionAbortedError",
        "TimeoutError",
        "BrokenPipeError",
        "UnavailableError",
    )
)
HINTS = {"memory": MEMORY_HINT, "disk": DISK_HINT, "peer": RESUME_HINT, "connection": RESUME_HINT}


def kind_of_text(text: str) -> str:
    """`memory`, `disk` or `peer` when a text (the end of a log, a message) gives such a sign; else empty."""
    found = next((kind for kind, sign in _SIGNS if sign.search(text)), "")
    return found or ("peer" if COLLECTIVE.search(text) else "")


def kind_of_error(error: Mapping[str, Any]) -> str:
    """The kind of an error record (errors/rank-N.json): memory, disk, peer, connection, user or error."""
    if error.get("user_error"):
        code = error.get("exit_code")
        return {int(Exit.CANNOT_WRITE): "disk", int(Exit.UNAVAILABLE): "connection"}.get(int(code or 0), "user")
    found = next((kind for kind, sign in _SIGNS if sign.search(f"{error.get('type')}: {error.get('message')}")), "")
    if found:
        return found
    if error.get("collective"):
        return "peer"
    return "connection" if error.get("type") in _CONNECTION_TYPES else "error"
