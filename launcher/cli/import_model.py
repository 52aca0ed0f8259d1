"""`import PATH`: a folder that `model:` takes, from weights in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_model(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A model folder or its weight file: pytorch_model.bin, model_state.pdparams, model.safetensors.",
            show_default=False,
        ),
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="The new folder, for `model:`.", show_default=False)
    ],
    trusted: Annotated[
        bool,
        typer.Option(
            "--i-trust-this-file",
            help="Needed for .bin and .pdparams: they are pickles, which can hold any program. Nothing of it is run here, and "
            "whatever is not a tensor is refused.",
        ),
    ] = False,
) -> None:
    """Convert pickled weights (.bin, .pdparams), or complete a folder without vocab.txt."""
    from launcher.trained import exec_module

    flag = ("--i-trust-this-file",) if trusted else ()
    raise typer.Exit(
        exec_module("trainers.import_model", (f"--from={path.absolute()}", f"--to={to.absolute()}", *flag), {})
    )
