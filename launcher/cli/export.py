"""`export RUN`: a trained model in the form of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from launcher.cli import options


def export(
    run: options.RunOrFolderArgument,
    to_format: Annotated[
        Literal["hf", "paddlenlp", "inference"],
        typer.Option(
            "--format",
            help="hf: a folder for Transformers. paddlenlp: a folder for PaddleNLP. inference: a program for paddle.inference.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Default: runs/RUN/STAGE/export-FORMAT.", show_default=False),
    ] = None,
    stage: options.OneStageOption = None,
    head: options.HeadOption = None,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Write a trained model for Transformers, PaddleNLP or Paddle's inference library."""
    from launcher.trained import run_module_on

    chosen = ("--format", to_format, *(() if to is None else (f"--to={to.absolute()}",)))
    chosen = (*chosen, *(() if head is None else (f"--head={head}",)))
    raise typer.Exit(run_module_on("trainers.export_model", run, stage, runs_dir, chosen))
