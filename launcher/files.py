"""Private files that appear whole or not at all, and JSON that is read without trust. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 * 2**20


def write_atomic(path: Path, content: bytes, durable: bool = False) -> None:
    """Replaces `path` by a 0600 file with this content; `durable`: it survives a power cut from here on. Raises
    OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def write_json(path: Path, value: Mapping[str, Any], durable: bool = False) -> None:
    """`write_atomic` of one JSON object. Raises OSError."""
    write_atomic(path, json.dumps(value, separators=(",", ":")).encode() + b"\n", durable)


def sync_directory(path: Path) -> None:
    """Makes renames inside the directory survive a power cut. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when the file is absent, implausibly large, incomplete or something else."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        value = json.loads(content) if len(content) <= MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def last_lines(path: Path, max_bytes: int = 4096) -> str:
    """The end of a text file, whole lines, undecodable bytes replaced; empty when it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - max_bytes))
            content = file.read(max_bytes)
    except OSError:
        return ""
    text = content.decode("utf-8", "replace")
    return text.partition("\n")[2] if size > max_bytes else text
