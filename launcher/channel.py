"""JSON lines over pipes that are watched with select: the agent's side and the supervisor's side of their
conversation."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterable, Mapping
from typing import Any

from launcher.tail import MAX_LINE_BYTES, parse_object

_CHUNK_BYTES = 2**16


class LineReader:
    """Splits what arrives at a pipe into JSON objects. `eof` becomes true when the other side has closed it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.eof = False
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """One read of what is there; call it when select says so. Lines that are no JSON object are skipped, a line
        over 1 MiB ends the pipe."""
        try:
            chunk = os.read(self.fd, _CHUNK_BYTES)
        except OSError:
            chunk = b""
        if not chunk or len(self._rest) > MAX_LINE_BYTES:
            self.eof = True
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [value for value in map(parse_object, lines) if value is not None]


class LineWriter:
    """Writes JSON objects, one per line. `broken` becomes true when nobody reads any more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.broken = False

    def write(self, value: Mapping[str, Any]) -> None:
        """Writes one object; waits while the pipe is full. Never raises."""
        content = memoryview(json.dumps(value, separators=(",", ":"), default=str).encode() + b"\n")
        try:
            while content and not self.broken:
                content = content[os.write(self._fd, content) :]
        except OSError:
            self.broken = True

    def has_room(self) -> bool:
        """Whether a short line can be written without waiting."""
        return not self.broken and bool(select.select((), (self._fd,), (), 0)[1])


def readable(fds: Iterable[int], timeout_s: float) -> set[int]:
    """Those of the descriptors that can be read, or have ended, within the time."""
    return set(select.select(list(fds), (), (), timeout_s)[0])
