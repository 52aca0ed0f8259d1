"""`predict RUN`: labels and probabilities for new texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli import options


def predict(
    run: options.RunArgument,
    source: Annotated[
        str | None, typer.Argument(metavar="[FILE|-]", help="A file of texts, or - for stdin.", show_default=False)
    ] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="T", help="One text.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A file of texts, one per line.", show_default=False)
    ] = None,
    stage: options.StageOption = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", metavar="NAME", help="Of a multi-task stage: the data set to classify for.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines with the probability of every class.")] = False,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Print label and probability of texts: one text, a file, or stdin."""
    from configs.errors import ConfigError
    from launcher.trained import run_module

    files = [value for value in (source, None if file is None else str(file)) if value is not None]
    if len(files) + (text is not None) != 1:
        raise ConfigError(
            "predict: give exactly one of --text TEXT, a file, or - for stdin",
            f'./run.sh predict {run} --text "What is the capital of France ?"',
        )
    chosen = (*(("--stage", stage) if stage else ()), *(("--json",) if as_json else ()))
    chosen = (*chosen, *(("--head", head) if head else ()))
    if text is not None:
        what: tuple[str, ...] = (f"--text={text}",)
    elif files == ["-"]:
        what = ("--file", "-")
    else:
        path = Path(files[0])
        if not path.is_file():
            raise ConfigError(f"{path}: no such file", f'./run.sh predict {run} --text "..." for one text')
        what = ("--file", str(path.absolute()))
    raise typer.Exit(run_module("trainers.predict", run, runs_dir, (*chosen, *what)))
