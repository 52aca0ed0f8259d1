"""Reading text files line by line, with the line number of whatever is wrong."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from configs.errors import DataError
from trainers.data.readers.base import ReadLog

MAX_LINE_BYTES = 64 << 20
"""A longer line is no text: it is refused rather than read into memory."""


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read; DataError when that is not possible."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


def read_lines(path: Path, encoding: str, log: ReadLog) -> Iterator[tuple[int, str]]:
    """(1-based line number, text without its end) of every line; \\n and \\r\\n end lines, a byte order mark is dropped.

    A line that cannot be decoded is noted as a bad row and left out.
    """
    if "\n".encode(encoding)[-2:] != b"\n":
        yield from _read_wide_lines(path, encoding, log)
        return
    name = path.name
    with open_bytes(path) as stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            log.advance(len(raw))
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(f"{name}:{number}: a line of more than {MAX_LINE_BYTES} bytes", "is this a text file?")
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError as error:
                bad = raw[error.start : error.start + 1].hex()
                log.bad_row(name, number, f"byte 0x{bad} at position {error.start} is not {encoding}")
                continue
            yield number, text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def _read_wide_lines(path: Path, encoding: str, log: ReadLog) -> Iterator[tuple[int, str]]:
    """Lines of encodings whose line end is not the byte \\n (UTF-16, UTF-32): the file is decoded at once."""
    with open_bytes(path) as stream:
        content = stream.read()
    log.advance(len(content))
    try:
        lines = content.decode(encoding).removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: byte {error.start} is not {encoding}", "set data.encoding") from error
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, line.removesuffix("\r")


def read_records(
    path: Path, encoding: str, log: ReadLog, delimiter: str = ",", quoted: bool = True
) -> Iterator[tuple[int, Sequence[str]]]:
    """(line on which it starts, fields) of every record of a CSV file; quoted fields may hold line ends and doubled quotes.

    `quoted` False (TSV): quotes are ordinary characters. Empty lines are skipped. A record that breaks the quoting rules is
    noted as a bad row; reading goes on behind it.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    numbers = [0]
    last_line = [0]

    def feed() -> Iterator[str]:
        for number, text in read_lines(path, encoding, log):
            numbers.append(number)
            yield text + "\n"

    source = feed()
    while True:
        reader = csv.reader(
            source, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        try:
            for fields in reader:
                start = _next_line(numbers, last_line[0])
                last_line[0] = numbers[-1]
                if fields:
                    yield start, fields
            return
        except csv.Error as error:
            log.bad_row(path.name, _next_line(numbers, last_line[0]), f"broken quoting ({error})")
            last_line[0] = numbers[-1]


def _next_line(numbers: list[int], last: int) -> int:
    """The first line fed after `last`; forgets the earlier ones."""
    fresh = [number for number in numbers if number > last]
    numbers[:] = numbers[-1:]
    return fresh[0] if fresh else last
