"""Golden files: rendered text that is compared with what was accepted before."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"
ACCEPT = "ACCEPT_GOLDEN"


def check_golden(name: str, text: str) -> None:
    """Compares text, spaces at line ends aside, with tests/golden/NAME; with ACCEPT_GOLDEN=1 in the environment, accepts it instead."""
    shown = "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"
    path = GOLDEN / name
    if os.environ.get(ACCEPT) == "1":
        path.write_text(shown, encoding="utf-8")
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    assert shown == expected, (
        f"{path} differs; if the new text is right: {ACCEPT}=1 python -m pytest {path.stem}, then look at git diff"
    )
