"""A made-up run as events with times, for the console's tests, and to look at: `python -m tests.console_replay [SPEED] [RANKS]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from launcher.console.observer import make_observer
from launcher.console.state import Header, RunView, StageView, start

T0 = 1_700_000_000.0
Event = dict[str, Any]


def first_view(ranks: int = 2, now: float = T0) -> RunView:
    """The console before the first event."""
    header = Header(
        "trec", "configs/trec.yaml", "all-minilm-l6-v2", ranks, 1, "CPU (gloo)", 1, "off (CPU has no AMP kernels)"
    )
    batch = "16 sequences x 2 ranks x 1 accumulation = 32 per step"
    return start(header, (StageView("pretrain", "pretrain", batch), StageView("finetune", "finetune", batch)), now)


def events(ranks: int = 2) -> Iterator[tuple[float, Event]]:
    """(seconds after T0, event) of a run: preparation, 60 steps of pre-training, 90 of fine-tuning with evaluations."""
    yield 0.0, {"type": "attempt_start", "attempt": 0, "start_port": 23456, "nodes": [node(ranks)]}
    for step in range(5):
        yield 0.2 + step, prepare("tokenize", "TREC train", 1000 * step, 4000, "rows")
    yield 4.5, {"type": "prepare", "what": "done"}
    yield 4.6, {"type": "state", "state": "running"}
    device = {
        "type": "device",
        "device": "cpu",
        "name": "CPU",
        "world_size": ranks,
        "threads": 1,
        "amp": "off (CPU has no AMP kernels)",
    }
    yield 8.0, rank_event(device)
    yield from _stage("pretrain", 9.0, 60, ranks)
    yield from _stage("finetune", 45.0, 90, ranks)
    yield 99.0, {"type": "run_end", "state": "finished", "exit_code": 0}


def _stage(name: str, begin: float, steps: int, ranks: int) -> Iterator[tuple[float, Event]]:
    head = {
        "stage": name,
        "task": name,
        "index": 1,
        "stages": 2,
        "total_steps": steps,
        "steps_per_epoch": 30,
        "start_step": 0,
    }
    yield (
        begin,
        rank_event(
            {"type": "stage_start", **head, "resumed_from": None, "num_examples": 4907, "num_parameters": 22_713_216}
        ),
    )
    for step in range(5, steps + 1, 5):
        at = begin + step / 2
        yield at, beats(ranks, name, step, at)
        yield at + 0.1, rank_event(progress(name, step, steps))
        if step % 30 == 0:
            yield (
                at + 0.2,
                rank_event({"type": "eval_progress", "stage": name, "split": "validation", "done": 3, "total": 12}),
            )
            if name == "finetune":
                yield at + 0.5, rank_event(evaluation(name, step))
            yield (
                at + 0.6,
                rank_event(
                    {"type": "checkpoint", "stage": name, "step": step, "path": "x", "bytes": 1, "seconds": 0.1}
                ),
            )
    metrics = {"accuracy": 0.962, "macro_f1": 0.955, "loss": 0.151} if name == "finetune" else {}
    end = {
        "type": "stage_end",
        "stage": name,
        "step": steps,
        "seconds": steps / 2,
        "reason": "finished",
        "metrics": metrics,
    }
    yield begin + steps / 2 + 1, rank_event(end)


def node(ranks: int) -> Event:
    """The only node of an attempt."""
    return {"node": 0, "host": "127.0.0.1", "nproc": ranks, "first_rank": 0}


def prepare(what: str, label: str, done: int, total: int, unit: str) -> Event:
    """Progress of the preparation."""
    return {"type": "prepare", "what": what, "label": label, "done": done, "total": total, "unit": unit}


def rank_event(record: Event, rank: int = 0) -> Event:
    """A record of a rank, as an agent passes it on."""
    return {"type": "rank", "node": 0, "record": {"rank": rank, **record}}


def progress(stage: str, step: int, total: int) -> Event:
    """A line of metrics."""
    losses = {"mlm": 2.1, "nsp": 0.4} if stage == "pretrain" else {}
    speed = {"samples_per_s": 57.8, "tokens_per_s": 712.4, "padding": 0.031, "samples": 160, "tokens": 1900}
    curve = {"loss": 2.5 - step / 60, "lr": 5e-5 * (1 - step / total), "grad_norm": 1.2345}
    return {
        "type": "progress",
        "stage": stage,
        "step": step,
        "total_steps": total,
        "epoch": step / 30,
        **curve,
        **speed,
        "losses": losses,
    }


def evaluation(stage: str, step: int) -> Event:
    """An evaluation that is the best so far."""
    metrics = {"accuracy": 0.9 + step / 2000, "macro_f1": 0.88 + step / 2000, "loss": 0.3 - step / 1000, "n": 545}
    return {"type": "eval", "stage": stage, "split": "validation", "step": step, "metrics": metrics, "best": True}


def beats(ranks: int, stage: str, step: int, at: float) -> Event:
    """Heartbeats of every rank; the last rank is a step behind."""
    rows = [
        {
            "rank": rank,
            "pid": 100 + rank,
            "t": T0 + at,
            "phase": "step",
            "stage": stage,
            "step": step - (rank == ranks - 1),
        }
        | {"rss_bytes": 812_000_000, "device_bytes": 0, "age_s": 0.3, "state": "running"}
        for rank in range(ranks)
    ]
    return {"type": "heartbeats", "node": 0, "ranks": rows}


def main() -> None:
    """Plays the run on this terminal."""
    speed = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    ranks = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    begin = time.time()
    observer = make_observer(first_view(ranks, begin))
    for at, event in events(ranks):
        while time.time() < begin + at / speed:
            observer.tick()
            time.sleep(0.1)
        observer.on_event(event)
    observer.close()


if __name__ == "__main__":
    main()
