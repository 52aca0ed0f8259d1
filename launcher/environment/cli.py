"""The commands run.sh hands to this package: `ensure` (first use), `setup` (asked for), `check` (own interpreter);
and `reference`, which `align` calls."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from .errors import CANNOT_WRITE, SetupError

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code. User errors are printed on stderr without a traceback."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        _run(arguments[0], arguments[1:])
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return CANNOT_WRITE
    except KeyboardInterrupt:
        print("\nSet-up interrupted; the next call starts it again.", file=sys.stderr)
        return 130
    return 0


def _run(command: str, arguments: list[str]) -> None:
    # Imported here because `check` runs before every command of a person's own interpreter and must be quick.
    if command == "check":
        from . import own

        own.check(tuple(arguments))
        return
    from . import setup
    from .place import Place

    if command == "reference":
        from . import reference

        reference.ensure(Place(ROOT, reference.NAME))
    elif command == "ensure":
        setup.ensure(Place(ROOT))
    else:
        setup.setup(Place(ROOT), arguments)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
