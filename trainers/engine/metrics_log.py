"""metrics.jsonl: one line per logged step over the whole life of a run, without gap or double after a resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trainers.engine.files import cannot_write, replace_file


class StepLog:
    """A JSON-lines file whose lines carry a `step`. Only rank 0 writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_after(self, step: int) -> None:
        """Drop the lines of later steps and a torn last line: they are written again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                complete = line.endswith(b"\n") and json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                complete = False
            if complete:
                kept.append(line)
        replace_file(self.path, b"".join(kept))

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line. Raises CannotWriteError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
