"""What an agent knows of one rank on its node: read from the small files that the shim and the rank write."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from cluster.processes import ProcessId
from configs.errors import Exit
from launcher.attempt_dir import AttemptDirectory
from launcher.ends import RankEnd
from launcher.facts import free_disk_bytes
from launcher.files import last_lines, read_json_object
from launcher.tail import JsonLinesTail, parse_object

HEARTBEAT_BYTES = 512
LITTLE_DISK_BYTES = 64 * 1024
"""With less free, the records of a rank's end may not have been written."""
STEPS_KEPT = 50
WORKING_PHASES = frozenset(("step", "evaluate", "save", "done"))
"""Phases after the start-up: a rank that was in one of them has started."""


class RankWatch:
    """One rank. `poll` reads what is new; nothing here blocks or signals."""

    def __init__(self, attempt: AttemptDirectory, node: int, rank: int) -> None:
        self.rank = rank
        self._attempt = attempt
        self._node = node
        self._records = JsonLinesTail(self._file("records.jsonl"))
        self._last: Mapping[str, Any] = {}
        self.shim: ProcessId | None = None
        self.worker: ProcessId | None = None
        self.exit: Mapping[str, Any] | None = None
        self.error: Mapping[str, Any] | None = None
        self.lost_at: float | None = None
        self.heartbeat: Mapping[str, Any] = {}
        self.beat_at = time.monotonic()
        """When the last sign of progress was seen, on this process's clock: nobody else's may jump."""
        self.step_seconds: deque[float] = deque(maxlen=STEPS_KEPT)
        self._step_mark: tuple[int | None, float] = (None, 0.0)
        self.phase = "start"
        self.has_started = False
        self.finished = False
        self.stopped_by_agent = False

    def _file(self, suffix: str) -> Any:
        return self._attempt.node(self._node) / f"rank-{self.rank}.{suffix}"

    @property
    def ended(self) -> bool:
        """The worker has ended, with or without a record of how."""
        return self.exit is not None or self.lost_at is not None

    @property
    def returncode(self) -> int | None:
        """Exit code; None while running, or when a signal ended it."""
        return self.exit.get("returncode") if self.exit is not None else None

    @property
    def failed(self) -> bool:
        """It ended badly, or has said that it is about to."""
        return self.error is not None or (self.ended and self.returncode not in (0, Exit.PREEMPTED))

    @property
    def left_early(self) -> bool:
        """It ended with 0 without having reported that its work is done."""
        return self.returncode == 0 and not self.finished

    def poll(self, everything: bool = False) -> list[dict[str, Any]]:
        """Reads what is new and returns the new records, all that there are if `everything`."""
        self._read_start()
        records = self._records.read_all() if everything else self._records.read()
        for record in records:
            self._last = {**self._last, **{key: record[key] for key in ("stage", "step") if key in record}}
            if record.get("type") == "phase":
                self._enter(str(record.get("phase", "")))
        self._read_heartbeat()
        if self.error is None:
            self.error = read_json_object(self._attempt.error(self.rank))
        self._read_end()
        return records

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.has_started = self.has_started or phase in WORKING_PHASES
        self.finished = self.finished or phase == "done"

    def _read_start(self) -> None:
        if self.worker is not None:
            return
        start = read_json_object(self._file("start.json"))
        if start is not None:
            self.shim = ProcessId(start["shim_pid"], start["shim_start"])
            self.worker = ProcessId(start["pid"], start["start"])

    def _read_heartbeat(self) -> None:
        try:
            with open(self._file("heartbeat"), "rb") as file:
                heartbeat = parse_object(file.read(HEARTBEAT_BYTES))
        except OSError:
            return
        if heartbeat is not None:
            if heartbeat.get("t") != self.heartbeat.get("t"):
                self.beat_at = time.monotonic()
                self._time_steps(heartbeat)
            self.heartbeat = heartbeat
            self._enter(str(heartbeat.get("phase", self.phase)))

    def _time_steps(self, heartbeat: Mapping[str, Any]) -> None:
        """Keeps how long the newest steps took, from one to the next."""
        if heartbeat.get("phase") != "step":
            return
        (step, t), self._step_mark = self._step_mark, (heartbeat["step"], heartbeat["t"])
        if step is not None and heartbeat["step"] > step:
            self.step_seconds.append((heartbeat["t"] - t) / (heartbeat["step"] - step))

    def _read_end(self) -> None:
        """The shim records the end before it ends itself: a shim that is gone without a record was killed, and its
        worker with it."""
        if self.ended:
            return
        shim_gone = self.shim is not None and not self.shim.alive()
        self.exit = read_json_object(self._file("exit.json"))
        if self.exit is None and shim_gone:
            self.lost_at = time.time()

    def view(self) -> dict[str, Any]:
        """The rank's row in a `heartbeats` event."""
        if not self.ended:
            state = "running" if self.worker is not None else "starting"
        elif self.failed or self.left_early:
            state = "lost" if self.lost_at is not None else "failed"
        else:
            state = "done"
        t = self.heartbeat.get("t")
        age = max(0.0, time.time() - t) if isinstance(t, (int, float)) else None
        place = {"phase": self.phase, "stage": self._last.get("stage", ""), "step": self._last.get("step")}
        return {**place, **self.heartbeat, "rank": self.rank, "state": state, "age_s": age}

    def end(self, oom_kills: int) -> RankEnd:
        """The rank's end for the root cause."""
        log = self._attempt.log(self._node, self.rank)
        place = {**self._last, **{key: value for key, value in self.heartbeat.items() if key in ("stage", "step")}}
        exit_record = self.exit or {}
        return RankEnd(
            rank=self.rank,
            node=self._node,
            returncode=exit_record.get("returncode"),
            signal=exit_record.get("signal"),
            t=float(exit_record.get("t") or self.lost_at or time.time()),
            stopped_by_agent=self.stopped_by_agent,
            finished=self.finished,
            phase=self.phase,
            stage=str(place.get("stage") or ""),
            step=place.get("step"),
            error=self.error,
            log_tail=last_lines(log),
            log=str(log),
            oom_kills=oom_kills,
            native=last_lines(self._attempt.native(self.rank)),
            rss_bytes=int(self.heartbeat.get("rss_bytes") or 0),
            disk_full=free_disk_bytes(log.parent) < LITTLE_DISK_BYTES,
        )
