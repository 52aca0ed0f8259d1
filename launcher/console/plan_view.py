"""The plan as a page for people; `plan --json` holds the same and more."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from launcher import secrets
from launcher.console import text
from launcher.estimates import DiskEstimate, MemoryEstimate
from launcher.plan import Plan, StagePlan

UNKNOWN = "known after prepare"


def render(plan: Plan) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_title(f"Plan of {plan.name}"), _pairs(_run_rows(plan))]
    for stage in plan.stages:
        parts += [_title(f"Stage {stage.name}"), _pairs(_stage_rows(plan, stage))]
        if stage.rates:
            parts.append(Padding(_rates(stage), (0, 0, 0, 2)))
    parts += [_title("Needs"), _pairs(_need_rows(plan))]
    parts += [_title("Processes"), _processes(plan)]
    parts += [
        _title("Longest waits"),
        _pairs((wait.what, text.duration(wait.seconds)) for wait in plan.waits),
    ]
    if plan.warnings:
        parts += [
            _title("Warnings"),
            *(Text(f"warning: {warning}", style="yellow") for warning in plan.warnings),
        ]
    return Group(*parts)


def _title(title: str) -> Rule:
    return Rule(Text(title, style="bold"), align="left", style="dim")


def _pairs(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(f"  {label}", Text(value))
    return table


def _run_rows(plan: Plan) -> list[tuple[str, str]]:
    facts = plan.model_facts
    size = (
        f"{facts.num_parameters / 1e6:.1f} M parameters, {facts.num_layers} layers of {facts.hidden_size}"
        if facts
        else f"size {UNKNOWN}"
    )
    nodes = len(plan.launch.nodes)
    where = f"{text.plural(nodes, 'node')}, {plan.device}"
    return [
        ("config", plan.config),
        ("run directory", plan.run_dir),
        ("model", f"{plan.model} ({size})"),
        ("ranks", f"{text.plural(plan.world_size, 'rank')} on {where}"),
        ("devices", ", ".join(f"{gpu.index}: {gpu.name}" for gpu in plan.gpus) or "none (CPU)"),
        (
            "threads",
            f"{text.plural(plan.threads_per_rank, 'thread')} per rank, {text.plural(plan.cores, 'core')} on this machine",
        ),
        ("AMP", plan.amp),
        ("seed", str(plan.seed)),
        ("restarts", plan.launch.restart.describe()),
        ("time limit", text.duration(plan.launch.time_limit_s) if plan.launch.time_limit_s else "none"),
    ]


def _stage_rows(plan: Plan, stage: StagePlan) -> list[tuple[str, str]]:
    steps = stage.steps
    duration = f"{text.plural(stage.epochs, 'epoch')}" if stage.epochs else "max_steps"
    rows = [
        ("task", f"{stage.task} (finished, not repeated)" if stage.finished else stage.task),
        ("starts from", plan.model if stage.init == "model" else f"stage {stage.init}"),
        ("batch", stage.batch.text),
        ("examples", UNKNOWN if steps.num_examples is None else f"{steps.num_examples:,} per epoch"),
        ("steps per epoch", UNKNOWN if steps.steps_per_epoch is None else f"{steps.steps_per_epoch:,}"),
        (
            "total steps",
            f"{UNKNOWN} ({duration})" if steps.total_steps is None else f"{steps.total_steps:,} ({duration})",
        ),
        ("learning rate", f"{stage.lr:.3g}, {stage.schedule}"),
        ("warm-up", stage.warmup),
        ("max length", f"{stage.max_length} tokens"),
    ]
    if stage.evaluation:
        rows.append(("evaluation", stage.evaluation))
    return rows


def _rates(stage: StagePlan) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("part of the model", no_wrap=True)
    table.add_column("peak learning rate", justify="right", no_wrap=True)
    for group in stage.rates:
        table.add_row(group.part, f"{group.lr:.4e}")
    return table


def _need_rows(plan: Plan) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for stage in plan.stages:
        rows.append((f"memory, {stage.name}", _memory_text(stage.memory)))
    rows.append(("memory free", text.size(plan.memory_available_bytes) if plan.memory_available_bytes else "unknown"))
    for stage in plan.stages:
        rows.append((f"disk, {stage.name}", _disk_text(stage.disk)))
    rows.append(("disk free", text.size(plan.disk_free_bytes) if plan.disk_free_bytes else "unknown"))
    return rows


def _memory_text(memory: MemoryEstimate | None) -> str:
    if memory is None:
        return UNKNOWN
    terms = [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("AdamW moments", memory.optimizer),
        ("EMA", memory.ema),
        ("activations at most", memory.activations),
        ("runtime", memory.runtime),
    ]
    parts = ", ".join(f"{name} {text.size(value)}" for name, value in terms if value)
    return f"about {text.size(memory.total)} per rank: {parts}"


def _disk_text(disk: DiskEstimate | None) -> str:
    if disk is None:
        return UNKNOWN
    checkpoints = f"{disk.num_checkpoints} checkpoints of {text.size(disk.checkpoint)}"
    return f"up to {text.size(disk.total)}: {checkpoints}, model {text.size(disk.model)}"


def _processes(plan: Plan) -> RenderableType:
    parts: list[RenderableType] = []
    if all(stage.finished for stage in plan.stages):
        return Text("  none: every stage is finished")
    if plan.launch.prepare_argv:
        parts += [Text("  before the ranks:"), _command(plan.launch.prepare_argv)]
    for spec in plan.processes:
        endpoints = ", ".join(plan.endpoints()[spec.first_rank : spec.first_rank + spec.nproc][:4]) + (
            " ..." if spec.nproc > 4 else ""
        )
        parts += [
            Text(f"  node {spec.node} ({spec.host}), {text.plural(spec.nproc, 'rank')} at {endpoints}:"),
            _command(spec.argv),
        ]
    parts.append(Text("  environment (secrets masked):"))
    parts.append(_pairs((f"  {name}", value) for name, value in sorted(secrets.mask(plan.launch.env).items())))
    return Group(*parts)


def _command(argv: tuple[str, ...]) -> RenderableType:
    return Padding(Text(shlex.join(argv), overflow="fold"), (0, 0, 0, 4))
