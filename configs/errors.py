"""Errors that a user can cause, and the documented exit codes. Shared by the control side and the ranks."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command (documented in the README)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DATA = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    CANNOT_WRITE = 73
    PREEMPTED = 75
    NO_PROGRESS = 76
    SIGINT = 130
    SIGTERM = 143


class UserError(Exception):
    """Something the user can mend: printed without a traceback as `message`, then `next: hint`, and ends the
    process with `code`."""

    code = Exit.USAGE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nnext: {self.hint}" if self.hint else self.message


class ConfigError(UserError):
    """A config, an override or an argument is wrong."""

    code = Exit.USAGE


class DataError(UserError):
    """A data file is missing, corrupt or holds a bad row."""

    code = Exit.DATA


class UnavailableError(UserError):
    """A node, a port, a download source or the rendezvous cannot be reached."""

    code = Exit.UNAVAILABLE


class CannotWriteError(UserError):
    """The disk is full or a place cannot be written."""

    code = Exit.CANNOT_WRITE


class NoProgressError(UserError):
    """Training cannot go on: the same failure came back without progress, or the numbers are no longer
    finite."""

    code = Exit.NO_PROGRESS
