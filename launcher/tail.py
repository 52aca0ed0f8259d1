"""Reading a file of JSON lines while another process appends to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 2**20
_CHUNK_BYTES = 2**18


class JsonLinesTail:
    """Yields each complete line of a growing file once. Lines that are no JSON object, or longer than 1 MiB, are
    skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._skipping = False

    def read(self) -> list[dict[str, Any]]:
        """The objects appended since the last call, at most 256 KiB of them; empty when there are none, or no file
        yet."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                chunk = file.read(_CHUNK_BYTES)
        except OSError:
            return []
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._skipping and lines:
            lines, self._skipping = lines[1:], False
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return [value for value in map(parse_object, lines) if value is not None]

    def read_all(self) -> list[dict[str, Any]]:
        """Everything up to the present end of the file."""
        values: list[dict[str, Any]] = []
        before = -1
        while self._offset != before:
            before = self._offset
            values += self.read()
        return values


def parse_object(line: bytes | str) -> dict[str, Any] | None:
    """The JSON object on a line; None for anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
