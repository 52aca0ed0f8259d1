"""The one exception of this package and the exit codes it may carry."""

from __future__ import annotations

USAGE = 2
UNAVAILABLE = 69
CANNOT_WRITE = 73


class SetupError(Exception):
    """A failure the user can act on: printed without a traceback, then the process ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
