"""TREC question classification (Li and Roth 2002): lines `COARSE:fine question` in latin-1, or `label<TAB>question`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import DataError
from trainers.data.download import Fetch
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, find_one, list_folder
from trainers.data.readers.lines import read_lines
from trainers.data.readers.sources import open_bytes
from trainers.data.readers.tab_form import TAB_NAMES, read_tab_form

COARSE = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
FINE = tuple(
    f"{coarse}:{fine}"
    for coarse, names in (
        ("ABBR", "abb exp"),
        ("DESC", "def desc manner reason"),
        (
            "ENTY",
            "animal body color cremat currency dismed event food instru lang letter other plant product religion "
            "sport substance symbol techmeth termeq veh word",
        ),
        ("HUM", "desc gr ind title"),
        ("LOC", "city country mount other state"),
        ("NUM", "code count date dist money ord other perc period speed temp volsize weight"),
    )
    for fine in names.split()
)
_FILES: Mapping[str, Sequence[str]] = {
    "train": ("train_5500.label", *TAB_NAMES["train"]),
    "test": ("TREC_10.label", *TAB_NAMES["test"]),
}
_EXPECTED = "a folder with train_5500.label and TREC_10.label (or train.tsv and test.tsv)"


def open_trec(path: str | None, labels: Literal["coarse", "fine"], fetch: Fetch) -> Dataset:
    """TREC from a local folder, or downloaded; 6 coarse or 50 fine labels."""
    if path is None:
        files = {split: fetch("trec", names[0]) for split, names in _FILES.items()}
    else:
        files = _local_files(existing(path, _EXPECTED))
    names = COARSE if labels == "coarse" else FINE

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        return _read(files[split], names, log)

    splits = {split: [file] for split, file in files.items()}
    return Dataset("trec", 1, splits, read, names, options={"labels": labels})


def _local_files(place: Path) -> dict[str, Path]:
    folder = place if place.is_dir() else place.parent
    found = {split: find_one(folder, names) for split, names in _FILES.items()}
    missing = [" or ".join(_FILES[split]) for split, file in found.items() if file is None]
    if missing:
        raise DataError(
            f"data.path: {folder} lacks {'; '.join(missing)}; it holds {list_folder(folder)}",
            f"set data.path to {_EXPECTED}",
        )
    return {split: file for split, file in found.items() if file is not None}


def _read(path: Path, names: tuple[str, ...], log: ReadLog) -> Iterator[Row]:
    numbers = {name: index for index, name in enumerate(names)}
    if _is_tab_form(path):
        yield from read_tab_form(path, "utf-8", lambda label: _number(label, numbers), _allowed(names), log)
        return
    for line, text in read_lines(path, "latin-1", log):
        label, space, question = text.partition(" ")
        number = _number(label, numbers) if ":" in label and space else None
        if number is None:
            log.bad_row(
                path.name, line, "no known label at the start", text, f"COARSE:fine question, {_allowed(names)}"
            )
        elif log.good_text(question, path.name, line):
            yield Row(question.strip(), None, number, path.name, line)


def _number(label: str, numbers: Mapping[str, int]) -> int | None:
    """The number of `COARSE:fine`, of a bare coarse name, or of a number as text (in the order of the names)."""
    if label.isdecimal() and label.isascii() and len(label) < 4 and int(label) < len(numbers):
        return int(label)
    if label in numbers:
        return numbers[label]
    coarse, colon, _ = label.partition(":")
    return numbers.get(coarse) if colon and label in FINE else None


def _allowed(names: tuple[str, ...]) -> str:
    return (
        f"one of {', '.join(names)}" if len(names) <= 6 else f"the {len(names)} labels from {names[0]} to {names[-1]}"
    )


def _is_tab_form(path: Path) -> bool:
    with open_bytes(path) as stream:
        return b"\t" in stream.readline(4096)
