"""`align`: makes the reference environment, runs the comparison in a process of its own, shows its result."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from configs.errors import ConfigError
from launcher import facts
from launcher.console import ending, output, tables
from launcher.environment import reference
from launcher.places import ROOT

ENVIRONMENT_DOOR = ROOT / "launcher" / "environment" / "__main__.py"
MODULE_STARTER = ROOT / "launcher" / "environment" / "start.py"
OWN_REFERENCE = ROOT / ".venv.d" / reference.NAME / "bin" / "python"
FIXTURES = ROOT.parent / "shared" / "data" / "fixtures"
LEAST_WIDTH = 132
"""Columns of a table that goes to a file or a pipe."""
COLUMNS = (
    tables.Column("compared"),
    tables.Column("arrays", True),
    tables.Column("max abs", True),
    tables.Column("max rel", True),
    tables.Column("abs + rel allowed"),
    tables.Column(""),
    tables.Column("nearest to its limit"),
)


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    model: str
    quick: bool
    fixtures: Path | None
    reference_python: str | None


def run(request: Request) -> dict[str, Any]:
    """Compare; returns the outcome with all rows. Ends the process with the error's code when it cannot be done."""
    if request.fixtures is not None and not request.fixtures.is_dir():
        raise ConfigError(
            f"--fixtures {request.fixtures}: no such folder", "leave it out, or name the folder that has the files"
        )
    python = _reference_python(request.reference_python)
    with tempfile.TemporaryDirectory(prefix="bert4doc-align-") as directory:
        result = Path(directory) / "result.json"
        code = subprocess.run(_command(request, python, result), env=_environment(), check=False).returncode
        if not result.is_file():
            raise typer.Exit(code if code > 0 else 1)  # it has said why
        outcome: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return outcome


def _reference_python(asked: str | None) -> str:
    if asked is not None:
        found = shutil.which(asked)
        if found is None:
            raise ConfigError(
                f"--reference-python {asked}: there is no such program",
                "leave it out (and BERT4DOC_ALIGN_PYTHON): align makes an environment of its own",
            )
        return os.path.abspath(found)
    code = subprocess.run([sys.executable, "-I", str(ENVIRONMENT_DOOR), "reference"], check=False).returncode
    if code:
        raise typer.Exit(code)  # it has said why
    return str(OWN_REFERENCE)


def _command(request: Request, python: str, result: Path) -> list[str]:
    fixtures = request.fixtures or (FIXTURES if FIXTURES.is_dir() else None)
    return [
        sys.executable,
        str(MODULE_STARTER),
        "trainers.align",
        *("--reference-python", python, "--model", request.model, "--result", str(result)),
        *("--threads", str(_threads())),
        *(("--quick",) if request.quick else ()),
        *(("--fixtures", str(fixtures.absolute())) if fixtures is not None else ()),
    ]


def _threads() -> int:
    """Both sides compute at the same time."""
    return max(1, facts.count_cores() // 2)


def _environment() -> dict[str, str]:
    threads = str(_threads())
    return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}


# What is shown ----------------------------------------------------------------------------------------------------------


def show(outcome: Mapping[str, Any], as_json: bool, verbose: bool) -> None:
    """The outcome as JSON, or as one table per section and a sentence."""
    if as_json:
        ending.write_lines([json.dumps(outcome, indent=1)])
        return
    console = output.make_console()
    if not console.is_terminal:
        console.width = max(console.width, LEAST_WIDTH)
    for section in dict.fromkeys(row["section"] for row in outcome["rows"]):
        rows = [row for row in outcome["rows"] if row["section"] == section]
        ending.print_table(section, COLUMNS, [cells for row in rows for cells in _cells(row, verbose)], console)
    ending.write_lines(summary(outcome))


def _cells(row: Mapping[str, Any], verbose: bool) -> list[Sequence[str]]:
    """The line of a row, and with `verbose` one for each array."""
    if row["status"] == "skipped":
        return [(row["what"], "", "", "", "", "skipped", row["worst"].removeprefix("skipped: "))]
    exact = row["tolerance_abs"] == row["tolerance_rel"] == 0.0
    allowed = "equal" if exact else f"{row['tolerance_abs']:.0e} + {row['tolerance_rel']:.0e}"
    status = {"pass": "pass", "fail": "FAIL"}[row["status"]]
    worst = "" if exact and row["status"] == "pass" else _short(row["worst"])
    lines: list[Sequence[str]] = [
        (row["what"], f"{row['arrays']:,}", _number(row["max_abs"]), _number(row["max_rel"]), allowed, status, worst)
    ]
    for each in row["details"] if verbose else ():
        verdict = "pass" if each["passed"] else "FAIL"
        lines.append(("", "", _number(each["max_abs"]), _number(each["max_rel"]), "", verdict, _short(each["item"])))
    return lines


def _short(name: str) -> str:
    """A parameter's name without what they all begin with."""
    return name.removeprefix("bert.").replace("encoder.layer.", "layer ")


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "0" if value == 0.0 else f"{value:.1e}"


def summary(outcome: Mapping[str, Any]) -> list[str]:
    """Counts, versions, time and how to read the columns."""
    statuses = [row["status"] for row in outcome["rows"]]
    failed = statuses.count("fail")
    values = sum(row["values"] for row in outcome["rows"])
    skipped = statuses.count("skipped")
    counted = f"{statuses.count('pass')} of {len(statuses)} rows pass, {failed} fail" + (
        f", {skipped} skipped" if skipped else ""
    )
    return [
        "max rel: difference / largest value of its array (weights: / largest change). Allowed: abs + rel * that value.",
        f"{counted}; {values:,} numbers compared in {outcome['seconds']:.0f} s "
        f"(Paddle {outcome['paddle']}; PyTorch {outcome['torch']}, Transformers {outcome['transformers']})",
        *(["not aligned: the rows marked FAIL differ from Transformers by more than rounding"] if failed else []),
    ]
