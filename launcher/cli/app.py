"""The table of commands. Each command's file imports what it needs when it runs: `--help` loads none of it."""

from __future__ import annotations

import typer

from launcher.cli import (
    align,
    door,
    evaluate,
    export,
    import_model,
    logs,
    plan,
    predict,
    prepare,
    quickstart,
    report,
    resume,
    runs,
    status,
    stop,
    train,
)

app = typer.Typer(
    name="bert4doc",
    help="Data-parallel further pre-training and fine-tuning of BERT for document classification, on PaddlePaddle.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, RUNS, USE, DOOR = "Train", "Look after runs", "Use the result", "Set up and test"

app.command("quickstart", rich_help_panel=START)(quickstart.quickstart)
app.command("train", rich_help_panel=START)(train.train)
app.command("plan", rich_help_panel=START)(plan.plan)
app.command("prepare", rich_help_panel=START)(prepare.prepare)
app.command("import", rich_help_panel=START)(import_model.import_model)
app.command("runs", rich_help_panel=RUNS)(runs.runs)
app.command("status", rich_help_panel=RUNS)(status.status)
app.command("logs", rich_help_panel=RUNS)(logs.logs)
app.command("stop", rich_help_panel=RUNS)(stop.stop)
app.command("resume", rich_help_panel=RUNS)(resume.resume)
app.command("evaluate", rich_help_panel=USE)(evaluate.evaluate)
app.command("predict", rich_help_panel=USE)(predict.predict)
app.command("report", rich_help_panel=USE)(report.report)
app.command("export", rich_help_panel=USE)(export.export)
app.command("align", rich_help_panel=DOOR)(align.align)
for name, function in (("setup", door.setup), ("test", door.test)):
    app.command(
        name,
        rich_help_panel=DOOR,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(function)

COMMANDS = tuple(str(command.name) for command in app.registered_commands)
