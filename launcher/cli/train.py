"""`train CONFIG`: runs the stages of a config, or goes on where its run stopped."""

from __future__ import annotations

import typer

from launcher.cli import options


def train(
    config: options.ConfigArgument,
    overrides: options.Overrides = None,
    stage: options.StageOption = None,
    nproc_per_node: options.NprocOption = None,
    devices: options.DevicesOption = None,
    resume: options.ResumeOption = "auto",
    name: options.NameOption = None,
    rerun: options.RerunOption = None,
    seeds: options.SeedsOption = None,
    folds: options.FoldsOption = None,
    runs_dir: options.RunsDirOption = None,
    chaos: options.ChaosOption = None,
) -> None:
    """Run the stages of a config; go on where this run stopped."""
    from launcher.cli.results import show_results
    from launcher.launching import run_session
    from launcher.request import Request, resolve

    request = Request(
        config,
        tuple(overrides or ()),
        stage,
        nproc_per_node,
        devices,
        resume,
        name,
        runs_dir,
        tuple(rerun or ()),
        options.read_seeds(seeds),
        folds,
        tuple(chaos or ()),
    )
    raise typer.Exit(run_session(resolve(request), show_results))
