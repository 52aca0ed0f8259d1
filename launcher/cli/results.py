"""The table that a finished run ends with."""

from __future__ import annotations

from launcher.request import Prepared


def show_results(prepared: Prepared) -> None:
    """Prints every stage's figures, the spread of groups, and what to run next."""
    from launcher.console import ending, report_view
    from launcher.report import make_report
    from launcher.results import read_results, result_rows

    name, config = prepared.config.name, prepared.config
    stages = list(config.stages)
    pretrained = stages[-1] if all(stage.task == "pretrain" for stage in config.stages.values()) else ""
    report = make_report(prepared.run, config)
    if not report.groups:
        results = read_results(prepared.run.path, tuple(stages))
        ending.print_results(f"Results of {name}", name, result_rows(results), pretrained)
        return
    ending.print_table(f"Results of {name}", report_view.COLUMNS, report_view.comparison([report]))
    ending.write_lines([*report_view.notes([report]), *ending.next_lines(name, pretrained)])
