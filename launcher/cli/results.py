"""The table that a finished run ends with."""

from __future__ import annotations

from launcher.request import Prepared


def show_results(prepared: Prepared) -> None:
    """Prints every stage's figures and what to run next."""
    from launcher.console import ending
    from launcher.results import read_results, result_rows

    results = read_results(prepared.run.path, tuple(prepared.config.stages))
    name = prepared.config.name
    ending.print_results(f"Results of {name}", name, result_rows(results))
