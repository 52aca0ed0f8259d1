"""Reading text files line by line, with the line number of whatever is wrong."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from configs.errors import DataError
from trainers.data.readers.base import ReadLog
from trainers.data.readers.sources import Source, open_source

MAX_LINE_BYTES = 1_000_000
"""A longer line is no text to classify: it is a bad row, and is not read into memory."""
_LINE_ENDS = "lines that end in \\n or \\r\\n"


class _Line(NamedTuple):
    number: int
    text: str
    """Without its end; where there is a fault, whatever keeps a CSV file's quoting in step."""
    fault: str
    """Why the line cannot be used; empty for a good one."""


def read_lines(source: Source, encoding: str, log: ReadLog) -> Iterator[tuple[int, str]]:
    """(1-based line number, text without its end) of every line; \\n and \\r\\n end lines, a byte order mark is dropped.

    A line that is too long or cannot be decoded, or with a lone \\r in it (two lines of an old Mac file, taken for one), is noted as
    a bad row and left out.
    """
    for number, text, fault in _lines(source, encoding, log):
        if fault:
            log.bad_row(source.name, number, fault)
        elif "\r" in text:
            log.bad_row(source.name, number, "a lone carriage return in the line", text, _LINE_ENDS)
        else:
            yield number, text


def read_records(
    source: Source, encoding: str, log: ReadLog, delimiter: str = ",", quoted: bool = True, keep_empty: bool = False
) -> Iterator[tuple[int, Sequence[str]]]:
    """(line on which it starts, fields) of every record of a CSV file; quoted fields may hold line ends and doubled quotes.

    `quoted` False (TSV): quotes are ordinary characters. Empty lines are skipped, or with
    `keep_empty` are records without fields. A record that breaks the quoting rules, or with a
    line that cannot be read, is noted as a bad row; reading goes on behind it (with broken quotes: behind its first line).
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    feed = _Feed(_lines(source, encoding, log))
    while True:
        reader = csv.reader(
            feed, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        try:
            for fields in reader:
                start, fault = feed.take()
                if fault is not None:
                    log.bad_row(source.name, fault.number, fault.fault)
                elif fields or keep_empty:
                    yield start, fields
            return
        except csv.Error as error:
            # a quote that is never closed would swallow the rows behind it
            first = feed.take_first()
            log.bad_row(source.name, first.number, first.fault or f"broken quoting ({error})")


class _Feed:
    """Hands lines to csv.reader and remembers those of the record it is at."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._record: list[_Line] = []
        self._again: deque[_Line] = deque()

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        self._record.append(self._again.popleft() if self._again else next(self._lines))
        return self._record[-1].text + "\n"

    def take(self) -> tuple[int, _Line | None]:
        """(first line of the record just read, its first faulty line or None)."""
        start = self._record[0].number if self._record else 0
        fault = next((line for line in self._record if line.fault), None)
        self._record = []
        return start, fault

    def take_first(self) -> _Line:
        """The first line of the record just read; the others will be read again."""
        first = self._record[0]
        self._again.extendleft(reversed(self._record[1:]))
        self._record = []
        return first


def _lines(source: Source, encoding: str, log: ReadLog) -> Iterator[_Line]:
    if "\n".encode(encoding)[-2:] != b"\n":
        yield from _wide_lines(source, encoding, log)
        return
    with open_source(source) as (stream, position):
        number = read = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            too_long = len(raw) > MAX_LINE_BYTES
            if too_long:
                raw = _skip_line(stream, raw)
            log.advance(position() - read)
            read = position()
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            yield _Line(number, raw.decode(), _too_long()) if too_long else _decoded(number, raw, encoding)


def _decoded(number: int, raw: bytes, encoding: str) -> _Line:
    try:
        return _Line(number, _without_end(raw.decode(encoding)), "")
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.start + 1].hex()
        text = _without_end(raw.decode(encoding, "replace"))
        return _Line(number, text, f"byte 0x{bad} at position {error.start} is not {encoding}")


def _skip_line(stream: BinaryIO, begin: bytes) -> bytes:
    """Read on to the end of a line without keeping it; what is left is its quote sign, if it has an odd number of them."""
    quotes, part = begin.count(b'"'), begin
    while part and not part.endswith(b"\n"):
        part = stream.readline(MAX_LINE_BYTES)
        quotes += part.count(b'"')
    return b'"' * (quotes % 2)


def _without_end(text: str) -> str:
    return text[:-1].rstrip("\r") if text.endswith("\n") else text.rstrip("\r")


def _too_long() -> str:
    return f"a line of more than {MAX_LINE_BYTES} bytes"


def _wide_lines(source: Source, encoding: str, log: ReadLog) -> Iterator[_Line]:
    """Lines of encodings whose line end is not the byte \\n (UTF-16, UTF-32): the file is decoded at once."""
    with open_source(source) as (stream, position):
        content = stream.read()
        log.advance(position())
    try:
        # halves of pairs come through, so that they are found with their line later
        lines = content.decode(encoding, "surrogatepass").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise DataError(
            f"{source.name}:{line}: byte {error.start} of the file is not {encoding}", "set data.encoding"
        ) from error
    if lines[-1] == "":
        lines.pop()
    for number, line_text in enumerate(lines, start=1):
        fault = _too_long() if len(line_text) > MAX_LINE_BYTES else ""
        yield _Line(number, '"' * (line_text.count('"') % 2) if fault else _without_end(line_text + "\n"), fault)
