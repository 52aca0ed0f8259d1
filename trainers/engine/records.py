"""What a rank tells the outside: records, a heartbeat, and how it failed. Plain files that the node's agent reads."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.errors import Exit, UserError

_HEARTBEAT_BYTES = 512
_COLLECTIVE_SIGNS = ("gloo", "nccl", "connection reset", "connection closed", "process group", "tcp_store", "tcpstore")


class Listener(Protocol):
    """What long work reports to."""

    stage: str

    def beat(self) -> None:
        """The work goes on."""

    def record(self, kind: str, **fields: Any) -> None:
        """Something to tell."""


class Recorder:
    """Writes one rank's records. Every method is cheap enough for each step."""

    def __init__(self, attempt_dir: Path, node: int, rank: int) -> None:
        base = attempt_dir / f"node-{node}"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.rank = rank
        self.node = node
        self.stage = ""
        self.phase = "import"
        self.step = 0
        self._stop_path = attempt_dir / "stop"
        self._error_path = attempt_dir / "errors" / f"rank-{rank}.json"
        self._records = os.open(base / f"rank-{rank}.records.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._heartbeat = os.open(base / f"rank-{rank}.heartbeat", os.O_WRONLY | os.O_CREAT, 0o600)
        self._device_bytes = 0
        self._waits = False
        self._describe: Callable[[], Mapping[str, Any]] | None = None
        self.beat()

    def record(self, kind: str, **fields: Any) -> None:
        """Append one record; `kind` and fields as in the launcher's protocol."""
        line = json.dumps({"t": time.time(), "rank": self.rank, "type": kind, **fields})
        os.write(self._records, line.encode() + b"\n")

    def message(self, text: str, level: str = "info") -> None:
        """A sentence for the screen."""
        self.record("message", level=level, text=text)

    def enter(self, phase: str, step: int | None = None) -> None:
        """Say what the rank is doing now: import, rendezvous, load, first_step, step, evaluate, save, done."""
        changed = phase != self.phase
        self.phase = phase
        self._waits = False
        if step is not None:
            self.step = step
        if changed:
            self.record("phase", phase=phase, stage=self.stage, step=self.step)
        self.beat()

    def beat(self) -> None:
        """Renew the heartbeat: one fixed-size JSON object, overwritten in place."""
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        beat = {
            "pid": os.getpid(),
            "t": time.time(),
            "phase": self.phase,
            "stage": self.stage,
            "step": self.step,
            "rss_bytes": resident,
            "device_bytes": self._device_bytes,
            "waits": self._waits,
        }
        os.pwrite(self._heartbeat, json.dumps(beat).encode().ljust(_HEARTBEAT_BYTES), 0)

    @contextlib.contextmanager
    def waiting_for_peers(self) -> Iterator[None]:
        """Say that this rank has done its part and waits for the others: a rank that hangs is found by not having said so."""
        self._waits = True
        self.beat()
        yield
        self._waits = False
        self.beat()

    def works_on(self, describe: Callable[[], Mapping[str, Any]] | None) -> None:
        """What an error record should say about the samples in work; asked only then. None: no samples."""
        self._describe = describe

    def set_device_bytes(self, num_bytes: int) -> None:
        """Most device memory used so far, shown with the heartbeat."""
        self._device_bytes = num_bytes

    def stop_requested(self) -> bool:
        """Whether the agent has asked all ranks to stop."""
        return self._stop_path.exists()

    def failure(self, error: BaseException) -> int:
        """Write errors/rank-N.json for an exception and return the exit code that it stands for."""
        code = error.code if isinstance(error, UserError) else Exit.FAILED
        message = error.message if isinstance(error, UserError) else str(error)
        report = {
            "rank": self.rank,
            "node": self.node,
            "pid": os.getpid(),
            "t": time.time(),
            "stage": self.stage,
            "phase": self.phase,
            "step": self.step,
            "type": type(error).__name__,
            "message": message,
            "traceback": "".join(traceback.format_exception(error)),
            "user_error": isinstance(error, UserError),
            "hint": error.hint if isinstance(error, UserError) else "",
            "exit_code": int(code),
            "collective": is_collective(error),
            "samples": self._samples(),
        }
        try:
            self._write_error(report)
        except OSError as full:  # the disk may be what failed: the exit code still tells
            print(f"cannot write {self._error_path}: {full}", file=sys.stderr)
        return int(code)

    def _samples(self) -> Mapping[str, Any]:
        if self._describe is not None:
            with contextlib.suppress(Exception):  # whatever is wrong with the data must not hide the error itself
                return self._describe()
        return {}

    def _write_error(self, report: Mapping[str, Any]) -> None:
        self._error_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._error_path.with_suffix(".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(report, file)
        partial.rename(self._error_path)


def is_collective(error: BaseException) -> bool:
    """Whether an exception tells of a lost peer (a symptom of another rank's failure) rather than of this rank's own."""
    if isinstance(error, UserError):
        return False
    text = f"{type(error).__name__}: {error}".lower()
    return any(sign in text for sign in _COLLECTIVE_SIGNS)
