"""`logs RUN`: the complete output of the ranks."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launcher.cli import options


def logs(
    run: options.RunArgument,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this rank.", show_default=False)] = None,
    node: Annotated[int | None, typer.Option("--node", min=0, help="Only this node.", show_default=False)] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=0, help="Of this attempt. Default: the newest.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    runs_dir: options.RunsDirOption = None,
) -> None:
    """Print the complete output of the ranks, each line with `node:rank`."""
    from launcher import places
    from launcher.log_view import LogView, choose_attempt
    from launcher.rundir import RunDirectory

    directory = RunDirectory.open(places.runs_dir(runs_dir), run)
    view = LogView(directory, choose_attempt(directory, attempt), node, rank)
    view.check()
    for line in view.follow() if follow else view.read():
        sys.stdout.write(line + "\n")
        if follow:
            sys.stdout.flush()
