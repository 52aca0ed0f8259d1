"""Data that has changed since a stage was trained on it: preparation says so, as no setting tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Say = Callable[[str, str], None]
"""(text, level): one line for the user."""


def tell_changed_data(run_dir: Path, stages: Mapping[str, Mapping[str, Any]], say: Say) -> None:
    """A warning for every finished stage whose data is not what it was trained on. stages: prepared.json's facts of every stage."""
    for name, facts in stages.items():
        trained_on = _trained_on(run_dir / name / "done.json")
        if trained_on is not None and trained_on != facts["data_fingerprint"]:
            say(
                f"stages.{name}: its data has changed since it was trained (its files, or how they are read), and its result is kept; "
                f"train it anew: --rerun {name}",
                "warning",
            )


def _trained_on(path: Path) -> str | None:
    """The fingerprint of the data that a finished stage was trained on; None for an unfinished one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("data_fingerprint")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None
