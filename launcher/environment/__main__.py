"""Entry for run.sh, which starts this file directly with `python -I`: the project is not on the path yet."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from launcher.environment.cli import main

    sys.exit(main(sys.argv[1:]))
