"""AG's News (Zhang et al. 2015): CSV of class 1..4, title, description, all quoted, no header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.errors import DataError
from trainers.data.download import Fetch
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, find_one, list_folder
from trainers.data.readers.lines import read_records

LABELS = ("World", "Sports", "Business", "Sci/Tech")
_EXPECTED = "a folder with train.csv and test.csv"


def open_ag_news(path: str | None, fetch: Fetch) -> Dataset:
    """AG's News from a local folder (or a folder holding ag_news_csv/), or downloaded."""
    if path is None:
        files = {split: fetch("ag_news", f"{split}.csv") for split in ("train", "test")}
    else:
        files = _local_files(existing(path, _EXPECTED))

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        return _read(files[split], log)

    return Dataset("ag_news", 1, {split: [file] for split, file in files.items()}, read, LABELS)


def _local_files(place: Path) -> dict[str, Path]:
    folder = place if place.is_dir() else place.parent
    if (folder / "ag_news_csv").is_dir():
        folder = folder / "ag_news_csv"
    files = {split: find_one(folder, [f"{split}.csv"]) for split in ("train", "test")}
    found = {split: file for split, file in files.items() if file is not None}
    if len(found) < 2:
        missing = ", ".join(f"{split}.csv" for split in files if split not in found)
        raise DataError(
            f"data.path: {folder} lacks {missing}; it holds {list_folder(folder)}", f"set data.path to {_EXPECTED}"
        )
    return found


def _read(path: Path, log: ReadLog) -> Iterator[Row]:
    for line, fields in read_records(path, "utf-8", log):
        if len(fields) != 3:
            log.bad_row(path.name, line, f"{len(fields)} columns", ",".join(fields), "3: class, title, description")
            continue
        label, title, description = fields
        if label not in ("1", "2", "3", "4"):
            log.bad_row(path.name, line, "label out of range", label, "1 World, 2 Sports, 3 Business, 4 Sci/Tech")
            continue
        text = " - ".join(part for part in (_without_backslashes(title), _without_backslashes(description)) if part)
        if log.good_text(text, path.name, line, "title and description"):
            yield Row(text, None, int(label) - 1, path.name, line)


def _without_backslashes(text: str) -> str:
    # In this archive a lone backslash stands for a line end ("wider\network access"): unlike in its sister archives, the letter n
    # behind it belongs to the next word.
    return text.replace("\\", " ").strip()
