"""`prepare CONFIG`: downloads or reads the data, checks it and tokenises it once into the cache."""

from __future__ import annotations

import shlex

from launcher.cli import options


def prepare(
    config: options.ConfigArgument,
    overrides: options.Overrides = None,
    name: options.NameOption = None,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Download or read the data, check it, and tokenise it once into the cache."""
    from launcher.console import ending, output, prepared_view, text
    from launcher.files import read_json_object
    from launcher.prepare_command import prepare as run_preparation
    from launcher.request import Request, resolve

    request = Request(config, tuple(overrides or ()), name=name, runs_dir=runs_dir)
    run = run_preparation(resolve(request))
    plan = resolve(request).plan
    facts = (read_json_object(run.prepared) or {}).get("stages", {})
    steps = {stage.name: stage.steps.total_steps for stage in plan.stages}
    console = output.make_console()
    for title, columns, rows in prepared_view.summary(plan.name, steps, facts):
        ending.print_table(title, columns, rows, console)
    ending.write_lines(prepared_view.details(facts, steps))
    stages = text.english_list(list(steps))
    words = [config, *(overrides or ()), *(("--name", name) if name else ())]
    ending.write_lines([f"next: ./run.sh train {shlex.join(words)}   runs {stages}"])
