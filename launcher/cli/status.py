"""`status RUN`: how a run is doing, from its directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.overview import Overview


def status(
    run: options.RunArgument, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False
) -> None:
    """Show how a run is doing."""
    from launcher import places
    from launcher.overview import describe
    from launcher.rundir import RunDirectory

    overview = describe(RunDirectory.open(places.runs_dir(runs_dir), run))
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(overview), indent=2))
        return
    from launcher.console.ending import write_lines

    write_lines(status_lines(overview))


def status_lines(overview: Overview) -> list[str]:
    """The status for people: state, place, results, root cause, next command."""
    import time

    from launcher.console import metrics, text

    where = f", stage {overview.stage}, step {overview.steps}" if overview.stage else ""
    lines = [f"run {overview.name}: {overview.state}{where}"]
    if overview.t:
        lines.append(f"  last sign    {text.duration(time.time() - overview.t)} ago, attempt {overview.attempt}")
    if overview.pid is not None:
        lines.append(f"  process      {overview.pid}")
    lines.append(f"  directory    {overview.path}")
    grouped = {member for group in overview.groups for member in group["members"]}
    for result in (each for each in overview.results if each["stage"] not in grouped):
        figures = metrics.joined(metrics.evaluation_pairs(result["test"] or result.get("metrics") or {}))
        split = f"{result['test'].get('split', 'test')} " if result["test"] else ""
        lines.append(f"  {result['stage']:<12} {split}{figures or 'finished'}")
    lines += [f"  {group['group']:<12} {group['summary']}" for group in overview.groups]
    if overview.root_cause and overview.state == "failed":
        lines += _cause_lines(overview)
    hint = _NEXT.get(overview.state)
    return [*lines, f"next: ./run.sh {hint.format(name=overview.name)}"] if hint else lines


def _cause_lines(overview: Overview) -> list[str]:
    from launcher.protocol import RootCause

    known = RootCause.__dataclass_fields__
    cause = RootCause(**{key: value for key, value in (overview.root_cause or {}).items() if key in known})
    details = [f"               {detail}" for detail in cause.details]
    return [f"  root cause   {cause.line()}", *details, *([f"  log          {cause.log}"] if cause.log else [])]


_NEXT = {
    "new": "train CONFIG --name {name}",
    "preparing": "logs {name} -f",
    "running": "logs {name} -f",
    "restarting": "logs {name} -f",
    "stopping": "logs {name} -f",
    "stopped": "resume {name}",
    "interrupted": "resume {name}",
    "failed": "resume {name}",
    "finished": "predict {name} --text ...",
}
