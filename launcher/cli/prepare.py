"""`prepare CONFIG`: downloads or reads the data, checks it and tokenises it once into the cache."""

from __future__ import annotations

from launcher.cli import options


def prepare(
    config: options.ConfigArgument,
    overrides: options.Overrides = None,
    name: options.NameOption = None,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Download or read the data, check it, and tokenise it once into the cache."""
    from launcher.console import ending, output, tables, text
    from launcher.prepare_command import prepare as run_preparation
    from launcher.request import Request, resolve

    request = Request(config, tuple(overrides or ()), name=name, runs_dir=runs_dir)
    run_preparation(resolve(request))
    plan = resolve(request).plan
    columns = [tables.Column("stage"), tables.Column("examples", True), tables.Column("steps", True)]
    rows = [(stage.name, _count(stage.steps.num_examples), _count(stage.steps.total_steps)) for stage in plan.stages]
    for stage in plan.stages:
        ending.write_lines([f"{stage.name}: {line}" for line in stage.corpora])
    ending.print_table(f"Prepared {plan.name}", columns, rows, output.make_console())
    stages = text.english_list([stage.name for stage in plan.stages])
    named = f" --name {name}" if name else ""
    ending.write_lines([f"next: ./run.sh train {config}{named}   runs {stages}"])


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
