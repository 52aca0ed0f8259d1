"""`align_mutations.py DIRECTORY NAME ...`: this side of the alignment with one thing broken, against a reference computed before.

Prints one JSON line per mutation: its name and the keys of the rows that fail in the section it is about. The mutation `none` breaks
nothing and covers every section.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fakes import align_mistakes, align_option_mistakes  # noqa: F401 - they fill MUTATIONS
from tests.fakes.align_registry import (
    FINETUNING,
    FROZEN,
    HIERARCHICAL,
    MUTATIONS,
    ORIGINAL,
    PRETRAINING,
    RATES,
    TEXT,
    Patches,
)
from trainers.align.alignment import compare, sections
from trainers.engine.ranks import tune_device

__all__ = ["MUTATIONS"]


@contextlib.contextmanager
def applied(patches: Patches) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


def failing_rows(directory: Path, inputs: dict[str, Any], names: set[str]) -> list[str]:
    """Keys of the failing rows of the named sections, each with its worst item."""
    failed = []
    for section in sections(directory, inputs):
        if section.name in names:
            results = compare(directory, section, section.compute())
            failed += [result.row.prefix for result in results if result.status != "pass"]
    return failed


def main(directory: Path, names: list[str]) -> None:
    tune_device()
    inputs = json.loads((directory / "inputs.json").read_text())
    for name in names:
        if name == "none":
            failed = failing_rows(
                directory, inputs, {TEXT, RATES, FINETUNING, PRETRAINING, ORIGINAL, FROZEN, HIERARCHICAL}
            )
        else:
            section, _, make = MUTATIONS[name]
            with applied(make()):
                failed = failing_rows(directory, inputs, {section})
        print(json.dumps({"name": name, "failed": failed}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
