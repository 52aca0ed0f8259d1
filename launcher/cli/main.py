"""Runs one command and turns every kind of end into a message and an exit code."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import TextIO

from configs.errors import Exit, UserError

PROGRAM = "./run.sh"


def main(arguments: Sequence[str]) -> int:
    """Runs the command in `arguments`; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        _make_forgiving(stream)
    try:
        return _run(normalise(arguments))
    except UserError as error:
        _say_error(error.message, error.hint)
        return int(error.code)
    except KeyboardInterrupt:
        _say_error("interrupted", "")
        return int(Exit.SIGINT)
    except BrokenPipeError:
        return _reader_has_gone()
    except Exception as error:  # noqa: BLE001 - the last resort: a short message here, the details in a file
        return _say_internal(error)


def _run(arguments: list[str]) -> int:
    from launcher.cli.app import COMMANDS, app

    if not arguments:
        arguments = ["--help"]
    command = arguments[0]
    if not command.startswith("-") and command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"unknown command '{command}'{meant}", f"{PROGRAM} --help lists the commands")
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except Exception as error:
        usage = _usage_error(error, command)
        if usage is None:
            raise
        raise usage from None
    sys.stdout.flush()
    return int(code or 0)


def normalise(arguments: Sequence[str]) -> list[str]:
    """Option names with `_` written with `-`: `--nproc_per_node=2` is `--nproc-per-node=2`. Nothing after a `--` changes."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [*map(_normalise_option, arguments[:end]), *arguments[end:]]


def _normalise_option(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _usage_error(error: Exception, command: str) -> UserError | None:
    """A UserError for what the command line parser refuses; None for any other exception.

    Told by its attributes: Typer raises classes of its own or of Click, depending on its version.
    """
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    help_line = f"{PROGRAM} {command} --help" if not command.startswith("-") else f"{PROGRAM} --help"
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if option is not None and context is not None:
        known = [name for param in context.command.params for name in param.opts if name.startswith("--")]
        if option not in known:
            close = difflib.get_close_matches(str(option), known, n=1)
            meant = f"; did you mean '{close[0]}'?" if close else f"; options: {', '.join(known)}"
            return UserError(f"{command}: unknown option '{option}'{meant}", help_line)
    return UserError(f"{command}: {describe()}", help_line)


def _say_error(message: str, hint: str) -> None:
    lines = [f"error: {message}"] + ([f"next: {hint}"] if hint else [])
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        return


def _say_internal(error: Exception) -> int:
    """Exit 70: one line for the reader, the traceback in a private file."""
    try:
        handle, path = tempfile.mkstemp(prefix="bert4doc-error-", suffix=".txt")
        with open(handle, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
        hint = f"report it with this file: {path}"
    except OSError:
        hint = "".join(traceback.format_exception(error))
    _say_error(f"internal error: {type(error).__name__}: {error}", hint)
    return int(Exit.INTERNAL)


def _reader_has_gone() -> int:
    """A command that only prints ends quietly when its reader does (`runs | head -1`)."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return int(Exit.DONE)


def _make_forgiving(stream: TextIO) -> None:
    """Characters that the stream's encoding lacks are replaced, never an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
