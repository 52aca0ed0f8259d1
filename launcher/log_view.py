"""The ranks' log files as one stream of lines with a `node:rank` prefix."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from configs.errors import ConfigError
from launcher.console.text import printable
from launcher.rundir import RunDirectory

POLL_S = 0.3
_CHUNK_BYTES = 2**18
_LOG = re.compile(r"^rank-(\d+)\.log$")
_NODE = re.compile(r"^node-(\d+)$")


def choose_attempt(run: RunDirectory, attempt: int | None) -> int:
    """The attempt that was asked for, else the newest. Raises ConfigError when it is not there."""
    numbers = run.attempts()
    if not numbers:
        raise ConfigError(f"run '{run.path.name}' has not been launched yet: there are no logs", "./run.sh runs")
    if attempt is not None and attempt not in numbers:
        there = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
        raise ConfigError(f"--attempt {attempt}: not there; attempts: {there}", f"./run.sh logs {run.path.name}")
    return numbers[-1] if attempt is None else attempt


class _Log:
    """One growing log file, read line by line."""

    def __init__(self, path: Path, node: int, rank: int) -> None:
        self.path = path
        self.prefix = f"{node}:{rank} | "
        self._offset = 0
        self._rest = b""

    def lines(self, last: bool) -> Iterator[str]:
        """The lines that are complete since the last call; with `last` also one that is not."""
        while chunk := self._read():
            *complete, self._rest = (self._rest + chunk).split(b"\n")
            yield from map(self._shown, complete)
        if last and self._rest:
            yield self._shown(self._rest)
            self._rest = b""

    def _read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                chunk = file.read(_CHUNK_BYTES)
        except OSError:
            return b""
        self._offset += len(chunk)
        return chunk

    def _shown(self, line: bytes) -> str:
        return self.prefix + printable(line.decode("utf-8", "replace").rstrip("\r"))


class LogView:
    """The logs of one attempt, all or of one node or rank."""

    def __init__(self, run: RunDirectory, attempt: int, node: int | None, rank: int | None) -> None:
        self._run = run
        self._attempt = attempt
        self._node = node
        self._rank = rank
        self._logs: dict[Path, _Log] = {}

    def check(self) -> None:
        """Raises ConfigError when the chosen node or rank has no log, naming those that there are."""
        if self._node is None and self._rank is None:
            return
        if not self._find(self._node, self._rank):
            known = ", ".join(log.prefix[:-3] for log in self._find(None, None)) or "none yet"
            raise ConfigError(
                f"attempt {self._attempt} has no log of the chosen rank (node:rank with a log: {known})",
                f"./run.sh logs {self._run.path.name}",
            )

    def read(self) -> Iterator[str]:
        """Every line up to now, rank after rank."""
        for log in self._find(self._node, self._rank):
            yield from log.lines(last=True)

    def follow(self) -> Iterator[str]:
        """Every line, then new ones as they come, until the run's supervisor is gone."""
        while True:
            alive = self._run.supervisor() is not None
            for log in self._find(self._node, self._rank):
                yield from log.lines(last=not alive)
            if not alive:
                return
            time.sleep(POLL_S)

    def _find(self, node: int | None, rank: int | None) -> list[_Log]:
        """Logs in rank order; files that appear later are found by the next call."""
        found: list[tuple[int, int, Path]] = []
        directory = self._run.attempt(self._attempt).path
        for folder in directory.glob("node-*"):
            in_node = _NODE.match(folder.name)
            if in_node is None or node not in (None, int(in_node[1])):
                continue
            for path in folder.glob("rank-*.log"):
                of_rank = _LOG.match(path.name)
                if of_rank is not None and rank in (None, int(of_rank[1])):
                    found.append((int(in_node[1]), int(of_rank[1]), path))
        return [self._logs.setdefault(path, _Log(path, at, number)) for at, number, path in sorted(found)]
