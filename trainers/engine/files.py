"""Writing that survives a crash: everything is written beside its place, synced, and renamed in one step."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import CannotWriteError


def cannot_write(path: Path, error: OSError) -> CannotWriteError:
    """The user's view of a failed write."""
    try:
        free = f"; {shutil.disk_usage(path.parent).free / 1e9:.2f} GB free"
    except OSError:
        free = ""
    return CannotWriteError(
        f"cannot write {path}: {error.strerror or error}{free}",
        "make room or mend the permissions, then run the same command again: it continues from the last checkpoint",
    )


def write_synced(path: Path, content: bytes) -> str:
    """Write a new file (0600), sync it, and return the sha256 of its content in hex. Raises CannotWriteError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error
    return hashlib.sha256(content).hexdigest()


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old or the new content, never a part. Raises CannotWriteError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_synced(partial, content)
        partial.rename(path)
        sync_directory(path.parent)
    except (OSError, CannotWriteError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, CannotWriteError):
            raise
        raise cannot_write(path, error) from error


def replace_json(path: Path, value: Any) -> None:
    """`replace_file` with JSON."""
    replace_file(path, json.dumps(value, indent=1).encode() + b"\n")


def commit_directory(target: Path, fill: Callable[[Path], None]) -> None:
    """Create a directory all at once: `fill` writes into a temporary sibling, which is synced and renamed to `target`.

    An existing target is replaced. Raises CannotWriteError, or what `fill` raises; nothing is left behind then.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        fill(partial)
        sync_directory(partial)
        if target.exists():
            retired = target.with_name(f".{target.name}.{os.getpid()}.retired")
            target.rename(retired)
            partial.rename(target)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            partial.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise cannot_write(target, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def sweep_partial(directory: Path) -> None:
    """Remove what a crash left of `commit_directory`; a retired directory whose successor is missing is put back."""
    for path in directory.glob(".*.retired"):
        original = directory / path.name[1:].rsplit(".", 2)[0]
        if original.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(original)
    for path in directory.glob(".*.partial"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
