"""`report [RUN ...]`: runs compared; `report --paper`: beside the paper's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli import options

if TYPE_CHECKING:
    from launcher.rundir import RunDirectory

RunsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]...", help="Names of runs; default: all.", show_default=False)
]
PaperOption = Annotated[
    bool,
    typer.Option("--paper", help="The paper's tables, with the figures of the runs of configs/paper/ beside them."),
]


def report(
    runs: RunsArgument = None,
    paper: PaperOption = False,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compare runs, seeds and sweeps; or see how close they come to the paper."""
    from launcher import places
    from launcher.report import read_run
    from launcher.rundir import RunDirectory, list_runs

    folder = places.runs_dir(runs_dir)
    found = [RunDirectory.open(folder, name) for name in dict.fromkeys(runs or ())] or list_runs(folder)
    if paper:
        _paper(found, as_json)
        return
    reports = [read_run(run) for run in found]
    if as_json:
        import json

        from launcher.report import to_json

        print(json.dumps(to_json(reports), indent=2))
        return
    from launcher.console import ending, report_view

    if not any(report.results for report in reports):
        names = ", ".join(report.name for report in reports) or f"no runs in {places.shown(folder)} yet"
        ending.write_lines([f"nothing to report: {names}", "next: ./run.sh runs"])
        return
    ending.print_table("", report_view.COLUMNS, report_view.comparison(reports))
    ending.write_lines(report_view.notes(reports))


def _paper(runs: list[RunDirectory], as_json: bool) -> None:
    """The tables of which there is something, and how much of each is there."""
    from launcher.paper import comparison, tables

    paper = tables.load()
    repeated = comparison.compare(paper, runs)
    if as_json:
        import json

        print(json.dumps(comparison.to_json(paper, repeated), indent=1))
        return
    from launcher.console import ending, paper_view

    for table in paper.titles:
        if found := paper_view.rows(paper, table, repeated):
            ending.print_table(paper_view.title(paper, table), paper_view.COLUMNS, found)
    ending.write_lines([*paper_view.notes(repeated), *paper_view.counts(paper, repeated)])
