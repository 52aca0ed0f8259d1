"""`resume RUN`: goes on with a run as it was configured."""

from __future__ import annotations

import typer

from launcher.cli import options


def resume(
    run: options.RunArgument,
    nproc_per_node: options.NprocOption = None,
    devices: options.DevicesOption = None,
    runs_dir: options.RunsDirOption = None,
    chaos: options.ChaosOption = None,
) -> None:
    """Go on with a run from its last checkpoint, with the config that it has."""
    from launcher import places
    from launcher.cli.results import show_results
    from launcher.launching import run_session
    from launcher.request import Request, resolve_run
    from launcher.rundir import RunDirectory

    directory = RunDirectory.open(places.runs_dir(runs_dir), run)
    request = Request(
        str(directory.config), nproc=nproc_per_node, devices=devices, runs_dir=runs_dir, chaos=tuple(chaos or ())
    )
    raise typer.Exit(run_session(resolve_run(directory, request), show_results))
