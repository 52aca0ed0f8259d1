"""The `label<TAB>text` form in which several public data sets also circulate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from trainers.data.readers.base import ReadLog, Row
from trainers.data.readers.lines import read_lines

TAB_NAMES = {"train": ("train.tsv", "train.txt"), "test": ("test.tsv", "test.txt")}


def read_tab_form(
    path: Path, encoding: str, number_of: Callable[[str], int | None], allowed: str, log: ReadLog
) -> Iterator[Row]:
    """Rows of a file of `label<TAB>text` lines; `number_of` gives a label's number or None."""
    for line, text in read_lines(path, encoding, log):
        label, tab, body = text.partition("\t")
        if not tab:
            log.bad_row(path.name, line, "no TAB between label and text", text, "label<TAB>text")
            continue
        number = number_of(label.strip())
        if number is None:
            log.bad_row(path.name, line, "unknown label", label, allowed)
        elif log.good_text(body, path.name, line):
            yield Row(body.strip(), None, number, path.name, line)
