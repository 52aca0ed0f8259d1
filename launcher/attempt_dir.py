"""The directory of one attempt, and private directories. Imports no schema, so that agents start quickly."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from configs.errors import CannotWriteError


class AttemptDirectory:
    """Files of one attempt: R/attempts/000."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def stop_file(self) -> Path:
        """Its existence asks every rank to write a checkpoint and leave; it holds the reason."""
        return self.path / "stop"

    def error(self, rank: int) -> Path:
        """Written by a rank that fails by an exception."""
        return self.path / "errors" / f"rank-{rank}.json"

    def native(self, rank: int) -> Path:
        """Python's stacks at a crash in native code; empty before one."""
        return self.path / "errors" / f"rank-{rank}.native"

    def stacks(self, node: int, rank: int) -> Path:
        """Stacks of a rank that hung, as the agent asked for them. While a rank runs, the file tells that it answers."""
        return self.node(node) / f"rank-{rank}.stacks"

    def node(self, node: int) -> Path:
        """Directory of one node: logs and the ranks' small files."""
        return self.path / f"node-{node}"

    def log(self, node: int, rank: int) -> Path:
        """Complete output of a rank."""
        return self.node(node) / f"rank-{rank}.log"

    def make(self, num_nodes: int) -> None:
        """Makes the directories (0700). Raises CannotWriteError."""
        for path in (self.path / "errors", *(self.node(node) for node in range(num_nodes))):
            make_private_directory(path)


def make_private_directory(path: Path) -> None:
    """Makes the directory with its parents, 0700, or accepts one of this user's own that is no symbolic link. Raises
    CannotWriteError."""
    with writing(path):
        for folder in reversed((path, *path.parents)):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "no directory"
        raise CannotWriteError(
            f"{path}: is {kind}; runs are only written to real directories", "remove it or choose another --name"
        )
    if info.st_uid != os.geteuid():
        raise CannotWriteError(
            f"{path}: belongs to user {info.st_uid}, not to you", "choose another --runs-dir or --name"
        )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into a CannotWriteError that names the path."""
    try:
        yield
    except OSError as error:
        raise CannotWriteError(f"{path}: {error.strerror}", "free space or choose another --runs-dir") from error
