"""Run a program of the trainers for a person at a terminal: `python -m trainers.program MODULE ...`.

Ctrl-C and SIGTERM end it with 130 and 143, without a traceback, and what was half written is removed.
"""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> NoReturn:
    """Imports Paddle, then the module that the first argument names, and runs its `main`."""
    # Signals wait until everything is imported: Paddle sets a handler of its own for SIGTERM, which prints a banner, and libraries
    # take an exception in the middle of their import for something else.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    importlib.import_module("paddle")
    module = importlib.import_module(sys.argv[1])
    for number in _SIGNALS:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.argv = sys.argv[1:]
    sys.exit(module.main())


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
