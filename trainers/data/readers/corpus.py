"""Plain text corpora: one sentence per line, a blank line between documents (the format of Google's BERT)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, list_folder
from trainers.data.readers.lines import read_lines

_EXPECTED = "a text file, or a folder of .txt files (one sentence per line, a blank line between documents)"


def open_text_corpus(data: DataConfig) -> Dataset:
    """A corpus file, a folder with the files that data.files names, or all .txt files of a folder as the training split."""
    if data.path is None:
        raise AssertionError("the schema asks generic data sets for a path")
    place = existing(data.path, _EXPECTED)
    splits = _find_files(place, data)

    def documents(split: str, log: ReadLog) -> Iterator[list[str]]:
        for path in splits[split]:
            yield from _read_documents(path, data.encoding, log)

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        raise DataError(f"{place}: a text corpus has no labels to train a classifier on", "use a labelled data set")

    options = {"encoding": data.encoding}
    return Dataset("text", 1, splits, read, None, place if place.is_dir() else None, options, documents)


def _find_files(place: Path, data: DataConfig) -> dict[str, Sequence[Path]]:
    if place.is_file():
        return {"train": [place]}
    named = {split: getattr(data.files, split) for split in ("train", "unsup")}
    splits: dict[str, Sequence[Path]] = {}
    for split, name in named.items():
        if name is None:
            continue
        if not (place / name).is_file():
            raise DataError(f"data.files.{split}: {place / name} is no file; {place} holds {list_folder(place)}")
        splits[split] = [place / name]
    if not splits:
        found = sorted(place.glob("*.txt"))
        if not found:
            raise DataError(
                f"data.path: {place} holds no .txt file but {list_folder(place)}", f"set data.path to {_EXPECTED}"
            )
        splits["train"] = found
    return splits


def _read_documents(path: Path, encoding: str, log: ReadLog) -> Iterator[list[str]]:
    document: list[str] = []
    for line, text in read_lines(path, encoding, log):
        sentence = text.strip()
        if not sentence:
            if document:
                yield document
            document = []
        elif log.good_text(sentence, path.name, line, "sentence"):
            document.append(sentence)
    if document:
        yield document
