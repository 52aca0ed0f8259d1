"""The texts to classify, as a stream: arguments, text lines, TSV, CSV and JSON lines, from files or standard input."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from configs.data import Column
from configs.errors import ConfigError, DataError
from trainers.data.readers.base import ReadLog
from trainers.data.readers.lines import read_lines, read_records

Format = Literal["text", "tsv", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("text", "tsv", "csv", "jsonl")
_SUFFIXES: Mapping[str, Format] = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_IDLE_S = 0.05
"""So long the reader may be silent before what is there is classified: a person or a program may be waiting for it."""

_READ_AHEAD = 64
"""Rows that wait to be classified."""
_GROUP_CHARACTERS = 1 << 20
"""A group of long texts ends here, so that memory is bounded by characters and not only by rows."""


class Item(NamedTuple):
    """One text, or a pair of texts."""

    text: str
    pair: str | None


@dataclass(frozen=True)
class Layout:
    """How a file is read."""

    format: Format
    column: Column
    """Of tables: the column of the text, by name or 0-based number."""
    pair_column: Column | None
    """The column of the second text; None: the model takes single texts."""
    header: bool
    """TSV, CSV: the first row names the columns."""


class FirstBadRow(ReadLog):
    """Stops at the first bad row: every line of output stands for one of input, so none may be left out."""

    def __init__(self, hint: str) -> None:
        super().__init__()
        self._hint = hint

    def bad_row(self, file: str, line: int, what: str, value: object = None, allowed: str = "") -> NoReturn:
        super().bad_row(file, line, what, value, allowed)
        self.finish()
        raise AssertionError("a noted row is an error")

    def _refuse(self) -> NoReturn:
        raise DataError("\n".join(self.examples), self._hint)


def guess_format(path: str) -> Format:
    """The format by the end of the name; text for others and for standard input."""
    return _SUFFIXES.get(Path(path).suffix.lower(), "text")


def read_arguments(texts: Sequence[str], pairs: Sequence[str], takes_pairs: bool) -> Iterator[Item]:
    """Texts given on the command line; a pair as --text-pair, or behind a TAB. Raises ConfigError."""
    if pairs and not takes_pairs:
        raise ConfigError("--text-pair: this model was trained on single texts", "leave --text-pair out")
    if pairs and len(pairs) != len(texts):
        raise ConfigError(f"--text-pair: {len(pairs)} given for {len(texts)} --text", "give one for each")
    log = FirstBadRow("give every --text something to classify")
    for number, text in enumerate(texts):
        if pairs:
            item = Item(text, pairs[number])
        else:
            item = Item(*_split(text, "--text", 0, log)) if takes_pairs else Item(text, None)
        for part in item:
            if part is not None:
                log.good_text(part, "--text", 0)
        yield item


def read_file(name: str, layout: Layout) -> Iterator[Item]:
    """Texts of a file (- is standard input), row by row. A blank line is an empty text in plain text and in tables of one column; in
    others, and in JSON lines, it is no row. Raises DataError with file and line for the first bad row."""
    if name == "-" and sys.stdin is None:
        raise DataError("-: standard input is closed", "name a file of texts, or use --text")
    path = Path("/dev/stdin" if name == "-" else name)
    log = FirstBadRow("mend it: there is a line of output for every row, so none can be left out")
    if layout.format == "text":
        for line, text in read_lines(path, "utf-8", log):
            yield Item(*_split(text, path.name, line, log)) if layout.pair_column is not None else Item(text, None)
        return
    source = _json_values(path, layout, log) if layout.format == "jsonl" else _table_values(path, layout, log)
    for _, values in source:
        yield Item(values[0], values[1] if len(values) > 1 else None)


def in_groups(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Groups in order, of at most `size` items and of bounded length, read ahead by a thread; a group is handed over early when
    no more arrives."""
    waiting: queue.Queue[Item | BaseException | None] = queue.Queue(maxsize=_READ_AHEAD)

    def feed() -> None:
        try:
            for item in items:
                waiting.put(item)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            waiting.put(error)

    threading.Thread(target=feed, daemon=True).start()
    while True:
        group: list[Item] = []
        num_characters = 0
        last: Item | BaseException | None = waiting.get()
        while isinstance(last, Item):
            group.append(last)
            num_characters += len(last.text) + len(last.pair or "")
            if len(group) == size or num_characters >= _GROUP_CHARACTERS:
                break
            try:
                last = waiting.get(timeout=_IDLE_S)
            except queue.Empty:
                break
        if group:
            yield group
        if isinstance(last, BaseException):
            raise last
        if last is None:
            return


def _split(text: str, file: str, line: int, log: FirstBadRow) -> tuple[str, str]:
    first, tab, second = text.partition("\t")
    if not tab:
        log.bad_row(file, line, "one text; this model was trained on pairs", text, "first text<TAB>second text")
    return first, second


def _wanted(layout: Layout) -> list[tuple[str, Column]]:
    pair = [] if layout.pair_column is None else [("--pair-column", layout.pair_column)]
    return [("--column", layout.column), *pair]


def _table_values(path: Path, layout: Layout, log: FirstBadRow) -> Iterator[tuple[int, list[str]]]:
    delimiter, quoted = ("\t", False) if layout.format == "tsv" else (",", True)
    indices: list[int] | None = None
    width, blank_before = 0, []
    for line, fields in read_records(path, "utf-8", log, delimiter, quoted, keep_empty=True):
        if not fields and indices is None:
            blank_before.append(line)
            continue
        if indices is None:
            width = len(fields)
            indices = [_index(path.name, line, fields, *each, layout.header) for each in _wanted(layout)]
            if layout.header:
                continue
            yield from ((blank, [""] * len(indices)) for blank in blank_before if width == 1)
        if not fields:
            if width == 1:
                yield line, [""] * len(indices)
            continue
        if len(fields) != width:
            log.bad_row(
                path.name, line, f"{len(fields)} columns", delimiter.join(fields), f"{width}, as in the first row"
            )
        values = [fields[index] for index in indices]
        if width > 1 or values[0].strip():
            _check(values, path.name, line, log)
        yield line, values


def _index(file: str, line: int, fields: Sequence[str], option: str, column: Column, header: bool) -> int:
    names = list(fields) if header else []
    if isinstance(column, str) and column in names:
        return names.index(column)
    if isinstance(column, int) and column < len(fields):
        return column
    numbers = f"0 to {len(fields) - 1}"
    there = f"{', '.join(names)}, or a number from {numbers}" if header else f"numbers from {numbers} (--no-header)"
    raise DataError(f"{file}:{line}: no column {column!r}; there is: {there}", f"name one of them with {option}")


def _check(values: Sequence[str], file: str, line: int, log: FirstBadRow) -> None:
    for text in values:
        log.good_text(text, file, line)


def _json_values(path: Path, layout: Layout, log: FirstBadRow) -> Iterator[tuple[int, list[str]]]:
    keys = [(option, str(column)) for option, column in _wanted(layout)]
    for line, text in read_lines(path, "utf-8", log):
        if not text.strip():
            continue
        try:
            record: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            log.bad_row(path.name, line, f"not JSON ({error})", text, "one JSON object per line")
        if not isinstance(record, dict):
            log.bad_row(path.name, line, "not a JSON object", text, "one JSON object per line")
        for option, key in keys:
            if not isinstance(record.get(key), str):
                texts = ", ".join(name for name, value in record.items() if isinstance(value, str)) or "none"
                raise DataError(
                    f"{path.name}:{line}: no text under {key!r}; keys with a text: {texts}",
                    f"name one of them with {option}" if texts != "none" else "give every object a text",
                )
        values = [record[key] for _, key in keys]
        _check(values, path.name, line, log)
        yield line, values
