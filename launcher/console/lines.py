"""The run as plain lines, for pipes, log files and terminals that cannot be drawn on.

`describe` is pure: an event and the state after it give the lines that tell it. Repeated figures are thinned out by time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from launcher.console import metrics, text
from launcher.console.state import Metrics, RunView, StageView, restart_text
from launcher.protocol import Event

MIN_INTERVAL_S = 5.0
"""Least seconds between two lines of the same kind of progress."""


@dataclass(frozen=True)
class Thinning:
    """When a line of each kind of progress was last written."""

    last: dict[str, float] = field(default_factory=dict)

    def due(self, kind: str, now: float) -> bool:
        """Enough time has passed since the last line of this kind."""
        return now - self.last.get(kind, float("-inf")) >= MIN_INTERVAL_S

    def written(self, kind: str, now: float) -> Thinning:
        """The same with a line of this kind written now."""
        return replace(self, last={**self.last, kind: now})


def describe(event: Event, state: RunView, thinning: Thinning, now: float) -> tuple[list[str], Thinning]:
    """Lines for one event, and the thinning after it. `state` is the state after the event."""
    body = event["record"] if event.get("type") == "rank" else event
    kind = str(body.get("type"))
    if kind in ("prepare", "progress", "eval_progress"):
        return _describe_progress(kind, body, state, thinning, now)
    writer = _WRITERS.get(kind)
    lines = writer(body, state) if writer else []
    return [text.printable(line).replace("\n", " ") for line in lines], thinning


def _describe_progress(
    kind: str, body: Metrics, state: RunView, thinning: Thinning, now: float
) -> tuple[list[str], Thinning]:
    key = f"{kind}:{body.get('stage', '')}{body.get('what', '')}{body.get('label', '')}"
    last_of_all = (
        body.get("step") == body.get("total_steps") if kind == "progress" else body.get("done") == body.get("total")
    )
    if body.get("what") == "done" or not (last_of_all or thinning.due(key, now)):
        return [], thinning
    line = _progress_line(body, state, now) if kind == "progress" else _work_line(kind, body)
    return [text.printable(line)], thinning.written(key, now)


def _progress_line(body: Metrics, state: RunView, now: float) -> str:
    stage = _stage(state, body)
    eta = f" eta {text.duration(stage.eta_s(now))}" if stage and stage.eta_s(now) is not None else ""
    epoch = f" epoch {body['epoch']:.2f}" if isinstance(body.get("epoch"), (int, float)) else ""
    figures = " ".join(
        f"{label.replace(' ', '_')} {value.replace(' ', '')}" for label, value in metrics.progress_pairs(body)
    )
    total = f"/{body['total_steps']}" if body.get("total_steps") else ""
    return f"[{body['stage']}] step {body['step']}{total}{epoch} {figures}{eta}"


def _work_line(kind: str, body: Metrics) -> str:
    amount = text.amounts(body.get("done") or 0, body.get("total"), str(body.get("unit") or ""))
    if kind == "prepare":
        return f"[prepare] {body.get('what', '')} {body.get('label', '')} {amount}"
    return f"[{body.get('stage', '')}] evaluate {body.get('split', '')} {amount}"


def _stage(state: RunView, body: Metrics) -> StageView | None:
    return next((stage for stage in state.stages if stage.name == body.get("stage")), None)


def _attempt_start(body: Metrics, state: RunView) -> list[str]:
    nodes = body["nodes"]
    ranks = sum(node["nproc"] for node in nodes)
    hosts = text.english_list([str(node["host"]) for node in nodes[:4]]) + (" ..." if len(nodes) > 4 else "")
    return [
        f"[run] attempt {body['attempt']}: {text.plural(ranks, 'rank')} on {hosts}, first port {body.get('start_port', '-')}"
    ]


def _state_line(body: Metrics, state: RunView) -> list[str]:
    reason = f" ({body['reason']})" if body.get("reason") else ""
    return [f"[run] {text.STOPPING if body['state'] == 'stopping' else body['state']}{reason}"]


def _restart(body: Metrics, state: RunView) -> list[str]:
    return [f"[run] warning: {body.get('reason', '')}", f"[run] {restart_text(body)}"]


def _device(body: Metrics, state: RunView) -> list[str]:
    if body.get("rank") != 0:
        return []
    header = state.header
    ranks = text.plural(header.world_size, "rank")
    return [f"[run] {ranks} on {header.device}, {text.plural(header.threads, 'thread')} per rank, AMP {header.amp}"]


def _stage_start(body: Metrics, state: RunView) -> list[str]:
    stage = _stage(state, body)
    if body.get("rank") != 0 or stage is None:
        return []
    lines = [f"[{stage.name}] {line}" for line in stage_arithmetic(stage)]
    if body.get("resumed_from"):
        lines.append(f"[{stage.name}] continues after step {stage.start_step}")
    return lines


def stage_arithmetic(stage: StageView) -> list[str]:
    """Batch and step arithmetic of a stage whose number of examples is known."""
    steps = f"{stage.num_examples:,} examples, {stage.steps_per_epoch:,} steps per epoch, {stage.total_steps:,} steps in all"
    return [stage.batch, steps] if stage.batch else [steps]


def _eval(body: Metrics, state: RunView) -> list[str]:
    figures = metrics.joined(metrics.evaluation_pairs(body.get("metrics", {})))
    best = " (best)" if body.get("best") else ""
    return [f"[{body['stage']}] {body['split']} at step {body['step']}: {figures}{best}"]


def _checkpoint(body: Metrics, state: RunView) -> list[str]:
    return [f"[{body['stage']}] saved step {body['step']}"]


def _stage_end(body: Metrics, state: RunView) -> list[str]:
    if body.get("rank", 0) != 0:
        return []
    figures = metrics.joined(metrics.evaluation_pairs(body.get("metrics") or {}))
    seconds = f" after {text.duration(body['seconds'])}" if body.get("seconds") else ""
    return [
        f"[{body['stage']}] {body.get('reason', 'finished')} at step {body['step']}{seconds}{': ' + figures if figures else ''}"
    ]


def _message(body: Metrics, state: RunView) -> list[str]:
    level = "" if body.get("level", "info") == "info" else f"{body['level']}: "
    return [f"[run] {level}{body.get('text', '')}"]


_WRITERS: dict[str, Callable[[Metrics, RunView], list[str]]] = {
    "attempt_start": _attempt_start,
    "state": _state_line,
    "restart": _restart,
    "device": _device,
    "stage_start": _stage_start,
    "eval": _eval,
    "checkpoint": _checkpoint,
    "stage_end": _stage_end,
    "message": _message,
}
