"""The plan as a page for people; `plan --json` holds the same and more."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from launcher import secrets
from launcher.anew import describe
from launcher.console import text
from launcher.estimates import DiskEstimate, MemoryEstimate
from launcher.plan import Plan, StagePlan

UNKNOWN = "known after prepare"
MAX_TABLES = 3
"""Tables of learning rates shown of one group."""
_FOLLOWS = ("task", "examples", "steps per epoch", "total steps")
"""Rows that follow from a stage's settings and its data; the others repeat settings."""


def render(plan: Plan) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_title(f"Plan of {plan.name}"), _pairs(_run_rows(plan))]
    if plan.anew:
        lines = describe(plan.anew, [stage.name for stage in plan.stages])
        parts += [_title("Trained anew"), *(Padding(Text(line, style="yellow"), (0, 0, 0, 2)) for line in lines)]
    for stages in _together(plan.stages):
        parts += _stage_parts(plan, stages)
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


def _together(stages: Sequence[StagePlan]) -> list[list[StagePlan]]:
    """The stages one by one, neighbours of the same group together."""
    found: list[list[StagePlan]] = []
    for stage in stages:
        if found and stage.group is not None and found[-1][0].group == stage.group:
            found[-1].append(stage)
        else:
            found.append([stage])
    return found


def _stage_parts(plan: Plan, stages: Sequence[StagePlan]) -> list[RenderableType]:
    """One stage, or what the stages of a group have in common and a line per stage for what differs."""
    first, rows = stages[0], [dict(_stage_rows(plan, stage)) for stage in stages]
    same = [label for label in rows[0] if len({row.get(label) for row in rows}) == 1]
    name = first.name if len(stages) == 1 else f"{first.group}: {len(stages)} stages"
    parts: list[RenderableType] = [
        _title(f"Stage {name}" if len(stages) == 1 else name),
        _pairs((label, rows[0][label]) for label in same),
    ]
    if len(stages) > 1:
        parts.append(_pairs((stage.name, _own(stage, row, same)) for stage, row in zip(stages, rows, strict=True)))
    return [*parts, *_tables(stages)]


def _own(stage: StagePlan, row: Mapping[str, str], same: Sequence[str]) -> str:
    """What a stage of a group has for itself: its settings, and what follows from them."""
    settings = [f"{key} {'null' if value is None else value}" for key, value in stage.own]
    return ", ".join(settings + [f"{label} {row[label]}" for label in _FOLLOWS if label in row and label not in same])


def _tables(stages: Sequence[StagePlan]) -> list[RenderableType]:
    """The data sets and the rates of the stages, once for those that have the same."""
    alike: dict[object, list[StagePlan]] = {}
    for stage in stages:
        alike.setdefault((stage.data_sets, stage.groups), []).append(stage)
    if len(alike) > MAX_TABLES:
        return [Text("  parts and rates differ between these stages; to see those of one: plan ... --stage NAME")]
    parts: list[RenderableType] = []
    for members in alike.values():
        if len(alike) > 1:
            parts.append(Text(f"  {', '.join(stage.name for stage in members)}:", style="dim"))
        for shown, table in ((members[0].data_sets, _data_sets), (members[0].groups, _groups)):
            if shown:
                parts.append(Padding(table(members[0]), (0, 0, 0, 2)))
    return parts


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
        ("starts from", _start_text(plan, stage)),
        ("seed", str(stage.seed)),
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
    if stage.reading:
        rows.append(("long texts", stage.reading))
    if stage.mixing:
        rows.append(("data sets drawn", stage.mixing))
    if stage.corpora:
        rows.insert(2, ("corpora", "\n".join(stage.corpora)))
    if stage.instances:
        rows.append(("instances", stage.instances))
    if stage.evaluation:
        rows.append(("evaluation", stage.evaluation))
    return rows


def _data_sets(stage: StagePlan) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("data set", no_wrap=True)
    table.add_column("read as", no_wrap=True)
    for column in ("examples", "labels", "steps per epoch", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in stage.data_sets:
        numbers = (part.num_examples, part.num_labels, part.steps_per_epoch)
        cells = ["-" if number is None else f"{number:,}" for number in numbers]
        share = "-" if part.share is None else f"{100 * part.share:.1f} %"
        table.add_row(part.name, part.dataset, *cells, share)
    return table


def _start_text(plan: Plan, stage: StagePlan) -> str:
    if stage.init == "model":
        return plan.model
    where = f" ({stage.start_folder})" if stage.start_folder else ""
    return f"{'run' if '/' in stage.init else 'stage'} {stage.init.replace('@', ' at step ')}{where}"


def _groups(stage: StagePlan) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("peak rate", justify="right", no_wrap=True)
    table.add_column("weight decay", no_wrap=True)
    for group in stage.groups:
        decay = f"{group.weight_decay:g} on {group.decayed_tensors} of {group.tensors} tensors"
        if group.frozen or group.weight_decay == 0:
            decay = f"none on {group.tensors} tensors"
        rate = "frozen" if group.frozen else f"{group.lr:.4e}"
        table.add_row(group.part, f"{group.parameters:,}" if group.known else UNKNOWN, rate, decay)
    return table


def _need_rows(plan: Plan) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for stages in _together(plan.stages):
        most = max(stages, key=lambda stage: stage.memory.total if stage.memory else 0)
        rows.append((f"memory, {_called(stages)}", _memory_text(most.memory)))
    rows.append(("memory free", text.size(plan.memory_available_bytes) if plan.memory_available_bytes else "unknown"))
    for stages in _together(plan.stages):
        each = f"{len(stages)} stages of " if len(stages) > 1 else ""
        rows.append((f"disk, {_called(stages)}", each + _disk_text(stages[0].disk)))
    rows.append(("disk free", text.size(plan.disk_free_bytes) if plan.disk_free_bytes else "unknown"))
    return rows


def _called(stages: Sequence[StagePlan]) -> str:
    return stages[0].name if len(stages) == 1 else str(stages[0].group)


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
    models = "model" if disk.num_models == 1 else f"{disk.num_models} models of"
    return f"up to {text.size(disk.total)}: {checkpoints}, {models} {text.size(disk.model)}"


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
