"""The record of a run while it runs: status.json, events.jsonl, and whoever watches. Nothing here can stop the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cluster.processes import ProcessId, boot_id
from launcher.protocol import Event, Observer, Outcome
from launcher.rundir import RunDirectory

STATUS_EVERY_S = 2.0
TICK_EVERY_S = 0.25
TRANSIENT = frozenset(("heartbeats", "prepare"))
TRANSIENT_RECORDS = frozenset(("progress", "eval_progress"))


class History:
    """Takes every event of a run, in order."""

    def __init__(self, run: RunDirectory, observer: Observer | None) -> None:
        me = ProcessId.current()
        self._run = run
        self._observer = observer
        self._next_status = 0.0
        self._next_tick = 0.0
        self._last_checkpoint = ""
        self._status: dict[str, Any] = {
            "state": "preparing",
            "stage": "",
            "step": 0,
            "total_steps": 0,
            "attempt": 0,
            "pid": me.pid,
            "start": me.start,
            "boot": boot_id(),
            "t": time.time(),
            "root_cause": None,
            "exit_code": None,
            "note": "",
        }

    @property
    def last_checkpoint(self) -> str:
        """Directory of the checkpoint that was saved last since this launch began; empty before the first."""
        return self._last_checkpoint

    @property
    def state(self) -> str:
        """The present state of status.json."""
        return str(self._status["state"])

    def add(self, event: Event) -> None:
        """Records an event and shows it to the observer."""
        event = event if "t" in event else {**event, "t": time.time()}
        self._update_status(event)
        if not _is_transient(event):
            self._run.append_event(event)
        self._show(event)
        for warning in self._run.take_warnings():
            self._show({"type": "message", "level": "warning", "text": warning, "t": time.time()})

    def message(self, text: str, level: str = "warning") -> None:
        """Records something that the user should read."""
        self.add({"type": "message", "level": level, "text": text})

    def set_state(self, state: str, reason: str = "") -> None:
        """Changes the state, unless it is that already."""
        if state != self.state:
            self._status["state"] = state
            self.add({"type": "state", "state": state, "reason": reason})
            self._write_status(durable=True)

    def begin_attempt(self, attempt: int, event: Mapping[str, Any]) -> None:
        """A new attempt starts."""
        self._status |= {"attempt": attempt, "state": "preparing"}
        self.add({"type": "attempt_start", "attempt": attempt, **event})
        self._write_status(durable=True)

    def restart(self, attempt: int, reason: str, delay_s: float, step: int) -> None:
        """The run goes on with another attempt after a pause."""
        self.set_state("restarting")
        self.add({"type": "restart", "attempt": attempt, "reason": reason, "delay_s": delay_s, "step": step})

    def finish(self, outcome: Outcome, last: bool) -> None:
        """An attempt, or with `last` the run, has ended."""
        cause = (
            None if outcome.root_cause is None else {**asdict(outcome.root_cause), "line": outcome.root_cause.line()}
        )
        end = {"state": outcome.state, "exit_code": outcome.exit_code, "root_cause": cause, "note": outcome.note}
        if last:
            self._status |= end
            self._write_status(durable=True)
        self.add({"type": "run_end" if last else "attempt_end", "attempt": outcome.attempt, **end})

    def tick(self) -> None:
        """Gives the observer its turn, about four times a second."""
        now = time.monotonic()
        if self._observer is not None and now >= self._next_tick:
            self._next_tick = now + TICK_EVERY_S
            try:
                self._observer.tick()
            except Exception as error:  # noqa: BLE001  whatever the screen does, training goes on
                self._drop_observer(error)

    def _show(self, event: Event) -> None:
        if self._observer is None:
            return
        try:
            self._observer.on_event(event)
        except Exception as error:  # noqa: BLE001  whatever the screen does, training goes on
            self._drop_observer(error)

    def _drop_observer(self, error: Exception) -> None:
        """A closed terminal or a fault of the screen costs the screen, not the training."""
        self._observer = None
        text = f"the screen is off: {type(error).__name__}: {error}"
        self._run.append_event({"type": "message", "level": "warning", "text": text, "t": time.time()})

    def _update_status(self, event: Event) -> None:
        record = event.get("record") if event.get("type") == "rank" else None
        if isinstance(record, Mapping):
            known = {key: record[key] for key in ("stage", "step", "total_steps") if record.get(key) is not None}
            self._status |= known
            if record.get("type") == "checkpoint":
                self._last_checkpoint = str(record.get("path") or "")
        if time.monotonic() >= self._next_status:
            self._write_status()

    def _write_status(self, durable: bool = False) -> None:
        self._next_status = time.monotonic() + STATUS_EVERY_S
        self._status["t"] = time.time()
        self._run.write_status(self._status, durable)


def _is_transient(event: Event) -> bool:
    record = event.get("record")
    inner = record.get("type") if isinstance(record, Mapping) else None
    return event.get("type") in TRANSIENT or inner in TRANSIENT_RECORDS
