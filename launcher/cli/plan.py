"""`plan CONFIG`: prints what `train` would run; starts nothing, writes nothing."""

from __future__ import annotations

from launcher.cli import options


def plan(
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
    as_json: options.JsonOption = False,
) -> None:
    """Print what `train` would run, and start nothing."""
    from launcher.launching import check_continuation
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
    prepared = resolve(request)
    check_continuation(prepared)
    if as_json:
        import json

        print(json.dumps(prepared.plan.to_json(), indent=2))
        return
    from launcher.console import output, plan_view

    output.make_console().print(plan_view.render(prepared.plan))
