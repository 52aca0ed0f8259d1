"""`evaluate RUN`: scores of a finished stage on a split, anew."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from launcher.cli import options


def evaluate(
    run: options.RunArgument,
    stage: options.OneStageOption = None,
    split: Annotated[
        Literal["test", "validation", "train"], typer.Option("--split", help="Which rows to score.")
    ] = "test",
    data_set: Annotated[
        str | None,
        typer.Option("--data-set", metavar="NAME", help="Of a multi-task stage: only this one.", show_default=False),
    ] = None,
    as_json: options.JsonOption = False,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Score a trained model on a split again."""
    from launcher.trained import run_module

    chosen = (*(("--stage", stage) if stage else ()), *(("--json",) if as_json else ()))
    chosen = (*chosen, *(("--data-set", data_set) if data_set else ()))
    raise typer.Exit(run_module("trainers.evaluate", run, runs_dir, (*chosen, "--split", split)))
