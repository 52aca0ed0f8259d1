"""`align`: every number of training compared with Transformers on PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def align(
    model: Annotated[
        str, typer.Option("--model", metavar="M", help="Real weights to compare with: a folder or a model's name.")
    ] = "all-minilm-l6-v2",
    quick: Annotated[bool, typer.Option("--quick", help="Only the random model, not the real weights.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Every single parameter, layer and text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs; always with every parameter.")] = False,
    fixtures: Annotated[
        Path | None,
        typer.Option(
            "--fixtures",
            metavar="DIR",
            help="Values the Paddle port of the paper saved: seed_tokenisation.jsonl, seed_learning_rate.json. "
            "Default: ../shared/data/fixtures beside the project, where it exists.",
            show_default=False,
        ),
    ] = None,
    reference_python: Annotated[
        str | None,
        typer.Option(
            "--reference-python",
            metavar="PATH",
            envvar="BERT4DOC_ALIGN_PYTHON",
            help="An interpreter that has torch, transformers, safetensors and scikit-learn. Default: one of our own in .venv.d/align, "
            "made on first use.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare forward passes, gradients, optimizer steps and scores with Transformers on PyTorch; exit 1 if any differs."""
    from launcher.alignment import Request, run, show

    request = Request(model, quick, fixtures, reference_python)
    outcome = run(request)
    show(outcome, as_json=as_json, verbose=verbose)
    raise typer.Exit(0 if outcome["passed"] else 1)
