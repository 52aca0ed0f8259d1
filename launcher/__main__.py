"""`python -m launcher COMMAND`; people use ./run.sh COMMAND."""

from __future__ import annotations

import sys

from launcher.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
