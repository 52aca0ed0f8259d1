"""What every reader gives: a data set of splits, each a stream of rows, and one place that collects bad rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from configs.errors import DataError
from trainers.data.sentences import split_sentences

Item = TypeVar("Item")
MAX_REPORTED = 20
"""Bad rows shown in one report."""


class Row(NamedTuple):
    """One item of a data set."""

    text: str
    pair: str | None
    label: int | str | None
    """A number of the data set's label names; a string where the names are found in the data; None without labels."""
    file: str
    line: int
    """1-based line in the file; 0 where the whole file is the row."""


class ReadLog:
    """Told of every bad row and of the bytes read. Bad rows are refused, up to 20 in one report, or counted where `skip` is set."""

    def __init__(self, advance: Callable[[int], None] | None = None, skip: bool = False) -> None:
        self.num_bad = 0
        """Bad rows so far."""
        self.num_good = 0
        """Rows (of a text corpus: sentences) that `counted` has seen."""
        self.examples: list[str] = []
        """The first of them, as "file:line: what is wrong"."""
        self._place = ("", -1)
        self._skip = skip
        self._advance = advance

    def bad_row(self, file: str, line: int, what: str, value: object = None, allowed: str = "") -> None:
        """Note a bad row; unless they are skipped, raises DataError with all noted ones at the twentieth."""
        if (file, line) != self._place:  # a row may have several faults
            self.num_bad += 1
            self._place = (file, line)
        if len(self.examples) >= MAX_REPORTED:
            return
        place = f"{file}:{line}" if line else file
        shown = "" if value is None else f": {_short(value)}"
        self.examples.append(f"{place}: {what}{shown}" + (f"; allowed: {allowed}" if allowed else ""))
        if len(self.examples) == MAX_REPORTED and not self._skip:
            self.examples.append(f"(stopped after {MAX_REPORTED} bad rows)")
            self._refuse()

    def good_text(self, text: str, file: str, line: int, what: str = "text") -> bool:
        """Whether a text can be used; notes it as a bad row if not."""
        if "\0" in text:
            self.bad_row(file, line, f"{what} holds a NUL character at position {text.index(chr(0))}")
            return False
        if not text or text.isspace():
            self.bad_row(file, line, f"{what} is empty")
            return False
        if not text.isascii() and any(0xD800 <= ord(char) <= 0xDFFF for char in text):
            self.bad_row(file, line, f"{what} holds half of a surrogate pair, which is no character")
            return False
        return True

    def advance(self, num_bytes: int) -> None:
        """Note bytes read, for progress."""
        if self._advance is not None:
            self._advance(num_bytes)

    def counted(self, items: Iterable[Item], size: Callable[[Item], int] = lambda item: 1) -> Iterator[Item]:
        """The items, counted as good rows."""
        for item in items:
            self.num_good += size(item)
            yield item

    def finish(self, max_bad_share: float = 0.0) -> None:
        """Raise DataError if there was a bad row; where they are skipped, if they are more than that share of all rows."""
        if not self._skip and self.examples:
            self._refuse()
        total = self.num_bad + self.num_good
        if self._skip and self.num_bad > max_bad_share * total:
            first = "\n".join(self.examples)
            raise DataError(
                f"{self.num_bad} of {total} rows are bad ({self.num_bad / total:.2%}); data.max_bad_rows allows "
                f"{max_bad_share:.2%}. The first:\n{first}",
                "mend these rows, or raise data.max_bad_rows",
            )

    def _refuse(self) -> None:
        raise DataError(
            "\n".join(self.examples),
            "mend or remove these rows, or leave them out with data.on_bad_row=skip, then run the same command again",
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


Rows = Callable[[str, ReadLog], Iterator[Row]]
Documents = Callable[[str, ReadLog], Iterator[list[str]]]


@dataclass(frozen=True)
class Dataset:
    """A raw data set whose files have been found."""

    name: str
    version: int
    """Version of the reader: part of the cache key, raised when the reader gives other rows for the same files."""
    splits: Mapping[str, Sequence[Path]]
    """The files of each split that exists (train, test, validation, unsup); an archive may serve several."""
    read: Rows
    """Rows of a split in input order."""
    label_names: tuple[str, ...] | None
    """None: the names are the values found in the training split."""
    root: Path | None = None
    """File names are hashed relative to it, so that moving the data changes nothing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else changes the rows."""
    read_documents: Documents | None = None
    """Documents as lists of sentences, where the raw data has them; default: each row's text split by rule."""

    def documents(self, split: str, log: ReadLog) -> Iterator[list[str]]:
        """Documents of a split, as lists of sentences."""
        if self.read_documents is not None:
            yield from self.read_documents(split, log)
            return
        for row in self.read(split, log):
            yield row_sentences(row)


def row_sentences(row: Row) -> list[str]:
    """The sentences of a row's text and pair."""
    sentences = split_sentences(row.text)
    return sentences if row.pair is None else sentences + split_sentences(row.pair)


def whole_text(row: Row) -> str:
    """A row's text and pair as one."""
    return row.text if row.pair is None else f"{row.text}\n{row.pair}"


def find_one(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that is in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def list_folder(folder: Path, limit: int = 12) -> str:
    """What is in a folder, for messages."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def existing(path: str, expected: str) -> Path:
    """The local path of `data.path`; DataError when nothing is there."""
    place = Path(path).expanduser()
    if not place.exists():
        parent = next(parent for parent in place.absolute().parents if parent.exists())
        raise DataError(
            f"data.path: {path} does not exist; {parent} holds {list_folder(parent)}", f"set data.path to {expected}"
        )
    if not (place.is_file() or place.is_dir()):
        raise DataError(f"data.path: {path} is neither a file nor a folder", f"set data.path to {expected}")
    return place
