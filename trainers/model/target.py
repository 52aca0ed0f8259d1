"""The folder that an import or an export writes: never over somebody else's files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from configs.errors import CannotWriteError, ConfigError
from trainers.engine.files import commit_directory, write_synced

ORIGIN_FILE = "bert4doc-origin.json"
"""Says by what command and from what a folder was made: such a folder may be made again."""


def check_target(folder: Path) -> None:
    """ConfigError when a folder holds something that we did not write."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"--to {folder}: exists and is no folder", "name a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ORIGIN_FILE).is_file():
        raise ConfigError(
            f"--to {folder}: exists, is not empty and was not written by import or export", "name a new folder"
        )


def write_target(folder: Path, origin: Mapping[str, object], fill: Callable[[Path], None]) -> None:
    """Write a folder all at once, with its origin; an older one of ours is replaced. Raises CannotWriteError."""

    def fill_all(directory: Path) -> None:
        fill(directory)
        write_synced(directory / ORIGIN_FILE, json.dumps(dict(origin), indent=1).encode() + b"\n")

    check_target(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWriteError(f"cannot write {folder}: {error.strerror}", "name another folder with --to") from error
    commit_directory(folder, fill_all)
