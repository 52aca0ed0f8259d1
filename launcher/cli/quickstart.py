"""`quickstart`: the main job end to end, on text and a small encoder that need no download."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.request import Prepared

RANKS = 2
COMPARED = {"baseline": "fine-tuned only", "finetune": "further pre-trained, then fine-tuned"}


def quickstart(
    overrides: options.Overrides = None,
    nproc_per_node: options.NprocOption = None,
    name: options.NameOption = None,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Prepare, further pre-train, fine-tune and evaluate on 2 ranks, in minutes, on text that is already here."""
    from launcher.console.ending import write_lines
    from launcher.facts import count_cores, list_gpus
    from launcher.launching import run_session
    from launcher.request import Request, resolve
    from launcher.topology import choose_gpus

    ranks = nproc_per_node
    if ranks is None:
        gpus = choose_gpus(None, list_gpus(), os.environ)
        ranks = str(min(RANKS, len(gpus) or count_cores()))
        if ranks == "1":
            write_lines(
                [f"quickstart: this machine has 1 {'GPU' if gpus else 'core'}, so 1 rank is used instead of {RANKS}"]
            )
    request = Request("quickstart", tuple(overrides or ()), nproc=ranks, name=name, runs_dir=runs_dir)
    raise typer.Exit(run_session(resolve(request), show_comparison))


def show_comparison(prepared: Prepared) -> None:
    """Accuracy and macro-F1 with and without further pre-training against the majority class, and what to run next."""
    from launcher.console import ending, tables, text
    from launcher.results import comparison_rows, read_results

    name = prepared.config.name
    results = read_results(prepared.run.path, tuple(prepared.config.stages))
    columns = [tables.Column("on the test split"), tables.Column("accuracy", True), tables.Column("macro-F1", True)]
    ending.print_table("What further pre-training brings", columns, comparison_rows(results, COMPARED))
    seconds = sum(result.seconds or 0.0 for result in results)
    again = f"{name}-2"
    ending.write_lines(
        [
            f"training time of all stages: {text.duration(seconds)}",
            *ending.next_lines(name),
            "  ./run.sh train trec                    question classification (TREC)",
            f"  ./run.sh quickstart --name {again}   the same once more, under another name",
        ]
    )
