"""The state that the console shows, and how each event of a run changes it.

`reduce(state, event, now)` is pure: recorded events with recorded times give the same screen again. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from launcher.protocol import Event

StageStatus = Literal["pending", "running", "done", "stopped", "failed"]
Metrics = Mapping[str, Any]
MAX_MESSAGES = 6
RATE_WINDOW = 20


@dataclass(frozen=True)
class Header:
    """What is known before anything starts."""

    name: str
    config: str = ""
    model: str = ""
    world_size: int = 1
    num_nodes: int = 1
    device: str = ""
    threads: int = 1
    amp: str = ""


@dataclass(frozen=True)
class StageView:
    """One stage of the run."""

    name: str
    task: str = ""
    batch: str = ""
    """The batch arithmetic as one line."""
    status: StageStatus = "pending"
    step: int = 0
    total_steps: int = 0
    start_step: int = 0
    num_examples: int = 0
    steps_per_epoch: int = 0
    started: float = 0.0
    seconds: float = 0.0
    progress: Metrics = field(default_factory=dict)
    evaluation: Metrics = field(default_factory=dict)
    best: Metrics = field(default_factory=dict)
    checkpoint: int | None = None
    metrics: Metrics = field(default_factory=dict)
    reason: str = ""
    marks: tuple[tuple[float, int], ...] = ()
    """Newest (time, step) pairs, from which the time left is estimated."""
    group: str | None = None
    """Stages of the same group are summed up where there is no room for all."""

    @property
    def steps_per_s(self) -> float:
        """Steps per second over the newest marks; 0 before there are two."""
        if len(self.marks) < 2:
            return 0.0
        (first_t, first_step), (last_t, last_step) = self.marks[0], self.marks[-1]
        return (last_step - first_step) / (last_t - first_t) if last_t > first_t else 0.0

    def eta_s(self, now: float) -> float | None:
        """Seconds until the last step, evaluation not counted; None before it can be known."""
        rate = self.steps_per_s
        if rate <= 0 or not self.total_steps:
            return None
        return max(0.0, (self.total_steps - self.step) / rate - (now - self.marks[-1][0]))


@dataclass(frozen=True)
class RankView:
    """One rank, as its heartbeats and records tell."""

    rank: int
    node: int
    state: str = "starting"
    phase: str = "start"
    stage: str = ""
    step: int = 0
    beat: float | None = None
    rss_bytes: int = 0
    device_bytes: int = 0
    end: str = ""


@dataclass(frozen=True)
class Work:
    """Preparation or evaluation under way."""

    label: str
    done: float
    total: float | None
    unit: str = ""


@dataclass(frozen=True)
class RunView:
    """Everything that a screen shows."""

    header: Header
    started: float
    stages: tuple[StageView, ...] = ()
    ranks: Mapping[tuple[int, int], RankView] = field(default_factory=dict)
    state: str = "preparing"
    attempt: int = 0
    reason: str = ""
    work: Work | None = None
    messages: tuple[tuple[float, str, str], ...] = ()

    @property
    def current(self) -> StageView | None:
        """The stage that is running, else None."""
        return next((stage for stage in self.stages if stage.status == "running"), None)


def start(header: Header, stages: tuple[StageView, ...], now: float) -> RunView:
    """The state before the first event."""
    return RunView(header, now, stages)


def add_message(state: RunView, level: str, text: str, now: float) -> RunView:
    """The state with one more line for the reader; only the newest are kept, and none twice in a row."""
    if state.messages and state.messages[-1][1:] == (level, text):
        return state
    return replace(state, messages=(*state.messages, (now, level, text))[-MAX_MESSAGES:])


def reduce(state: RunView, event: Event, now: float) -> RunView:
    """The state after an event. Unknown events change nothing: a newer rank may say more than this screen shows."""
    handler = _EVENTS.get(str(event.get("type")))
    return handler(state, event, now) if handler else state


def _on_rank(state: RunView, event: Event, now: float) -> RunView:
    record = event["record"]
    handler = _RECORDS.get(str(record.get("type")))
    return handler(state, {**record, "node": event.get("node", 0)}, now) if handler else state


def _on_heartbeats(state: RunView, event: Event, now: float) -> RunView:
    ranks = dict(state.ranks)
    for beat in event["ranks"]:
        key = (int(event.get("node", 0)), int(beat["rank"]))
        age = beat.get("age_s")
        ranks[key] = replace(
            ranks.get(key) or RankView(rank=key[1], node=key[0]),
            state=beat.get("state") or "running",
            phase=beat.get("phase") or "start",
            stage=beat.get("stage") or "",
            step=int(beat.get("step") or 0),
            beat=now - age if age is not None else beat.get("t"),
            rss_bytes=int(beat.get("rss_bytes") or 0),
            device_bytes=int(beat.get("device_bytes") or 0),
        )
    return replace(state, ranks=ranks)


def _on_rank_exit(state: RunView, event: Event, now: float) -> RunView:
    key = (int(event.get("node", 0)), int(event["rank"]))
    known = state.ranks.get(key) or RankView(rank=key[1], node=key[0])
    end = f"signal {event['signal']}" if event.get("signal") else f"exit {event.get('returncode')}"
    return replace(state, ranks={**state.ranks, key: replace(known, end=end)})


def _on_prepare(state: RunView, event: Event, now: float) -> RunView:
    if event.get("what") == "done":
        return replace(state, work=None)
    label = f"{event.get('what', 'prepare')} {event.get('label', '')}".strip()
    return replace(state, work=Work(label, event.get("done") or 0, event.get("total"), event.get("unit") or ""))


def _on_message(state: RunView, event: Event, now: float) -> RunView:
    return add_message(state, str(event.get("level", "info")), str(event.get("text", "")), now)


def _on_attempt_start(state: RunView, event: Event, now: float) -> RunView:
    ranks = {
        (node["node"], rank): RankView(rank=rank, node=node["node"])
        for node in event["nodes"]
        for rank in range(node["first_rank"], node["first_rank"] + node["nproc"])
    }
    return replace(state, attempt=int(event["attempt"]), ranks=ranks)


def _on_state(state: RunView, event: Event, now: float) -> RunView:
    work = None if event["state"] == "running" else state.work
    return replace(state, state=str(event["state"]), reason=str(event.get("reason") or ""), work=work)


def _on_restart(state: RunView, event: Event, now: float) -> RunView:
    state = add_message(state, "warning", str(event.get("reason") or ""), now)
    return add_message(state, "info", restart_text(event), now)


def restart_text(event: Event) -> str:
    """`attempt 1 in 5 s, from step 20`."""
    where = f"from step {event['step']:,}" if event.get("step") else "from the start of the stage"
    return f"attempt {event['attempt']} in {event['delay_s']:g} s, {where}"


def _on_run_end(state: RunView, event: Event, now: float) -> RunView:
    ended: StageStatus = "failed" if event["state"] == "failed" else "stopped"
    stages = tuple(replace(s, status=ended) if s.status == "running" else s for s in state.stages)
    return replace(state, state=str(event["state"]), stages=stages, work=None)


def _update_stage(state: RunView, name: str, **changes: Any) -> RunView:
    stages = tuple(replace(stage, **changes) if stage.name == name else stage for stage in state.stages)
    return replace(state, stages=stages)


def _find(state: RunView, name: Any) -> StageView | None:
    return next((stage for stage in state.stages if stage.name == name), None)


def _on_device(state: RunView, record: Metrics, now: float) -> RunView:
    header = replace(
        state.header,
        device=_device_text(record) or state.header.device,
        world_size=int(record.get("world_size") or state.header.world_size),
        threads=int(record.get("threads") or state.header.threads),
        amp=str(record.get("amp") or state.header.amp),
    )
    return replace(state, header=header) if record.get("rank") == 0 else state


def _device_text(record: Metrics) -> str:
    """The GPU's name; nothing on CPU, where the plan has said it all."""
    return str(record.get("name") or "") if str(record.get("device")).startswith("gpu") else ""


def _on_stage_start(state: RunView, record: Metrics, now: float) -> RunView:
    if record.get("rank") != 0:
        return state
    step = int(record.get("start_step") or 0)
    state = _update_stage(
        state,
        record["stage"],
        status="running",
        started=now,
        step=step,
        start_step=step,
        total_steps=int(record.get("total_steps") or 0),
        num_examples=int(record.get("num_examples") or 0),
        steps_per_epoch=int(record.get("steps_per_epoch") or 0),
        marks=((now, step),),
    )
    if record.get("resumed_from"):
        state = add_message(state, "info", f"{record['stage']}: continues after step {step}", now)
    return replace(state, work=None)


def _on_progress(state: RunView, record: Metrics, now: float) -> RunView:
    stage = _find(state, record.get("stage"))
    if stage is None:
        return state
    step = int(record["step"])
    marks = (*stage.marks, (now, step))[-RATE_WINDOW:]
    if len(marks) == 2 and step > stage.start_step and stage.marks[0][1] == stage.start_step:
        marks = marks[1:]  # the first step holds one-time work (graph building, memory): not a rate
    total = int(record.get("total_steps") or stage.total_steps)
    progress = {**record, "losses": _latest_losses(stage.progress, record)}
    return replace(
        _update_stage(state, stage.name, step=step, total_steps=total, progress=progress, marks=marks),
        work=None,
    )


def _latest_losses(earlier: Metrics, record: Metrics) -> dict[str, Any]:
    """The terms of the loss; one that had no step since the last record keeps what it was, so that the screen stays put."""
    known = earlier.get("losses") or {}
    losses = record.get("losses") or {}
    return {name: known.get(name) if value is None else value for name, value in losses.items()}


def _on_eval_progress(state: RunView, record: Metrics, now: float) -> RunView:
    label = f"evaluate {record.get('stage', '')} on {record.get('split', '')}"
    return replace(state, work=Work(label, record.get("done") or 0, record.get("total"), "batches"))


def _on_eval(state: RunView, record: Metrics, now: float) -> RunView:
    entry = {"split": record.get("split"), "step": record.get("step"), **record.get("metrics", {})}
    changes: dict[str, Any] = {"evaluation": entry}
    if record.get("best"):
        changes["best"] = entry
    return replace(_update_stage(state, record["stage"], **changes), work=None)


def _on_checkpoint(state: RunView, record: Metrics, now: float) -> RunView:
    return _update_stage(state, record["stage"], checkpoint=int(record["step"]))


def _on_stage_end(state: RunView, record: Metrics, now: float) -> RunView:
    if record.get("rank", 0) != 0:
        return state
    stopped = record.get("reason") == "stopped"
    return replace(
        _update_stage(
            state,
            record["stage"],
            status="stopped" if stopped else "done",
            step=int(record.get("step") or 0),
            seconds=float(record.get("seconds") or 0.0),
            metrics=record.get("metrics") or {},
            reason=str(record.get("reason") or ""),
        ),
        work=None,
    )


def _on_phase(state: RunView, record: Metrics, now: float) -> RunView:
    key = (int(record.get("node", 0)), int(record["rank"]))
    known = state.ranks.get(key) or RankView(rank=key[1], node=key[0])
    changed = replace(
        known,
        phase=str(record["phase"]),
        stage=str(record.get("stage") or ""),
        step=int(record.get("step") or 0),
    )
    return replace(state, ranks={**state.ranks, key: changed})


_Handler = Callable[[RunView, Event, float], RunView]
_EVENTS: dict[str, _Handler] = {
    "rank": _on_rank,
    "heartbeats": _on_heartbeats,
    "rank_exit": _on_rank_exit,
    "prepare": _on_prepare,
    "message": _on_message,
    "attempt_start": _on_attempt_start,
    "state": _on_state,
    "restart": _on_restart,
    "run_end": _on_run_end,
}
_RECORDS: dict[str, _Handler] = {
    "phase": _on_phase,
    "device": _on_device,
    "stage_start": _on_stage_start,
    "progress": _on_progress,
    "eval_progress": _on_eval_progress,
    "eval": _on_eval,
    "checkpoint": _on_checkpoint,
    "stage_end": _on_stage_end,
    "message": _on_message,
}
