"""Training curves for VisualDL, made from metrics.jsonl so that a resumed run has no gap and no double."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CURVES = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "padding")


def write_board(directory: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write the curves anew; `entries` are the lines of metrics.jsonl."""
    from visualdl import LogWriter

    shutil.rmtree(directory, ignore_errors=True)
    with LogWriter(logdir=str(directory)) as writer:
        for entry in entries:
            for name in _CURVES:
                writer.add_scalar(tag=name, step=entry["step"], value=entry[name])
            for name, value in entry["losses"].items():
                if value is None:  # no step of this data set since the last line
                    continue
                writer.add_scalar(tag=f"loss/{name}", step=entry["step"], value=value)
