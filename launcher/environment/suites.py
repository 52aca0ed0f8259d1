"""`./run.sh test [SUITE] [pytest arguments]`: which suites there are and what they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Suite -> pytest arguments; directories that do not exist are left out.
SUITES: dict[str, tuple[str, ...]] = {
    "all": ("tests/unit", "tests/dist", "tests/fault", "tests/golden", "-m", "not campaign"),
    "fast": ("tests/unit", "-m", "not slow"),
    "fault": ("tests/fault", "-s"),
}
HELP = """usage: ./run.sh test [SUITE] [pytest arguments]

suites:
  all    every test that needs nothing but this machine (the default)
  fast   the unit tests without the slow ones
  fault  everything that breaks a run on purpose, with a campaign of random faults of about an hour: FAULT_RUNS=N runs
         instead of 20, FAULT_SEED=N (printed) repeats one

Paths given among the pytest arguments replace the directories of the suite, for example
  ./run.sh test tests/unit/test_environment.py -k stamp"""


def pytest_arguments(arguments: list[str], root: Path = ROOT) -> list[str]:
    """The arguments for pytest run in `root`."""
    suite = arguments[0] if arguments and arguments[0] in SUITES else "all"
    rest = arguments[1:] if arguments and arguments[0] in SUITES else arguments
    own_paths = any((root / argument.partition("::")[0]).exists() for argument in rest if not argument.startswith("-"))
    chosen = []
    for argument in SUITES[suite]:
        is_path = argument.startswith("tests/")
        if is_path and (own_paths or not (root / argument).is_dir()):
            continue
        chosen.append(argument)
    return [*chosen, *rest]


def main(arguments: list[str]) -> None:
    """Replace this process by pytest."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP)
        return
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments(arguments)])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
