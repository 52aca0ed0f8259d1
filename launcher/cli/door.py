"""`setup` and `test`: listed here for the help, done by run.sh before Python starts."""

from __future__ import annotations

from configs.errors import UserError


def setup() -> None:
    """Make the environment (.venv) from the lock file; also done by itself on first use."""
    raise UserError("setup is done by run.sh, not by python -m launcher", "./run.sh setup")


def test() -> None:
    """Run the test suite (`test fast`: without the slow tests; `test fault`: break runs on purpose)."""
    raise UserError("test is done by run.sh, not by python -m launcher", "./run.sh test")
