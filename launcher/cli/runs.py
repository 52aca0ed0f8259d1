"""`runs`: a table of all runs, the newest first."""

from __future__ import annotations

from launcher.cli import options

MAX_STAGE = 24


def runs(runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """List all runs and how they are doing."""
    import time

    from launcher import places
    from launcher.overview import list_overviews

    folder = places.runs_dir(runs_dir)
    found = list_overviews(folder)
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(overview) for overview in found], indent=2))
        return
    from launcher.console import ending, stage_rows, tables, text

    if not found:
        ending.write_lines([f"no runs in {places.shown(folder)} yet", "next: ./run.sh quickstart"])
        return
    now = time.time()
    headings = ("run", "state", "stage", "step", "result", "last sign")
    columns = [tables.Column(heading, right=heading in ("step", "last sign")) for heading in headings]
    rows = [
        (
            run.name,
            run.state,
            stage_rows.shortened(run.stage, MAX_STAGE),
            run.steps,
            run.result,
            f"{text.duration(now - run.t)} ago" if run.t else "-",
        )
        for run in found
    ]
    ending.print_table("", columns, rows)
