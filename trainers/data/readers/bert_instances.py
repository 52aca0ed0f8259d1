"""Ready-made pre-training instances in JSON: one list of objects, as the Paddle port writes them, or one object per line.

    {"input_ids": [...], "input_mask": [...], "segment_ids": [...], "masked_lm_positions": [...], "masked_lm_ids": [...],
     "next_sentence_labels": 0}

The first three have one entry per cell of the padded sequence; positions and ids are padded with 0.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data.readers.base import Dataset, ReadLog, Row, existing
from trainers.data.readers.sources import open_bytes
from trainers.data.vocabulary import Vocabulary

CHUNK_BYTES = 1 << 20
MAX_INSTANCE_CHARACTERS = 1 << 20
"""Text of one instance; more is refused rather than read into memory."""
MAX_CELLS = 4096
_CELLS = ("input_ids", "input_mask", "segment_ids")
_PREDICTIONS = ("masked_lm_positions", "masked_lm_ids")
_SPACE = " \t\r\n"
_HINT = "the file is one JSON list of instances, or one instance per line; write it anew"


class ReadyInstance(NamedTuple):
    """One instance without its padding."""

    ids: np.ndarray
    """Token ids with what the masking put in place: int64 [tokens]."""
    types: np.ndarray
    """0 first text, 1 second: int64 [tokens]."""
    positions: np.ndarray
    """Predicted positions, ascending: int64 [predictions]."""
    labels: np.ndarray
    """True ids there: int64 [predictions]."""
    is_random_next: int


def open_bert_instances(data: DataConfig) -> Dataset:
    """One JSON file as the training split."""
    if data.path is None:
        raise AssertionError("the schema asks for a path")
    place = existing(data.path, "a JSON file of instances")
    if not place.is_file():
        raise DataError(f"data.path: {place} is a folder", "set data.path to the JSON file of instances")

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        raise DataError(f"{place}: instances have no text", "use a data set of texts")

    return Dataset(data.dataset, 1, {"train": [place]}, read, None)


def read_instances(path: Path, vocabulary: Vocabulary, log: ReadLog) -> Iterator[ReadyInstance]:
    """The instances of a file, numbered from 1 in messages; faulty ones are noted as bad rows. Memory: one megabyte or instance."""
    for number, value in enumerate(_objects(path, log), start=1):
        try:
            yield _checked(value, vocabulary)
        except _Fault as fault:
            log.bad_row(f"{path.name}: instance {number}", 0, *fault.args)


class _Fault(Exception):
    """What is wrong with an instance: (what, value, allowed)."""


def _objects(path: Path, log: ReadLog) -> Iterator[Any]:
    """The values of a JSON list or of JSON lines, one after another."""
    decoder, text, number = json.JSONDecoder(), _Text(path, log), 1
    in_list = text.peek() == "["
    if in_list:
        text.take()
    while (sign := text.peek()) and not (in_list and sign == "]"):
        yield _decode(decoder, text, f"{path.name}: instance {number}")
        number += 1
        if in_list and text.peek() == ",":
            text.take()
            if text.peek() == "]":
                raise DataError(f"{path.name}: instance {number}: missing behind the last comma", _HINT)
        elif in_list and text.peek() != "]":
            raise DataError(f"{path.name}: instance {number}: expected ',' or ']', found {text.peek()!r}", _HINT)
    if in_list:
        if not text.peek():
            raise DataError(f"{path.name}: the list has no end after {number - 1} instances", _HINT)
        text.take()
        if text.peek():
            raise DataError(f"{path.name}: text behind the end of the list", _HINT)


def _decode(decoder: json.JSONDecoder, text: _Text, place: str) -> Any:
    """The next JSON value. A value that does not end in what has been read is tried again with more."""
    if text.peek() != "{":
        raise DataError(f"{place}: expected an object, found {text.peek()!r}", _HINT)
    while True:
        try:
            value, end = decoder.raw_decode(text.buffer, text.at)
        except (ValueError, RecursionError) as error:
            if len(text.buffer) - text.at > MAX_INSTANCE_CHARACTERS or not text.more():
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise DataError(f"{place}: no valid JSON ({reason})", _HINT) from error
            continue
        text.at = end
        return value


class _Text:
    """Text of a file, read in chunks; what lies before `at` is dropped when more is read."""

    def __init__(self, path: Path, log: ReadLog) -> None:
        self.buffer = ""
        self.at = 0
        self._path = path
        self._log = log
        self._chunks = self._read()

    def peek(self) -> str:
        """The next sign that is no white space, where `at` then stands; empty at the end."""
        while True:
            while self.at < len(self.buffer) and self.buffer[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more():
                return ""

    def take(self) -> None:
        """Go past one sign."""
        self.at += 1

    def more(self) -> bool:
        """Read another chunk; False at the end of the file."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self.buffer = self.buffer[self.at :] + chunk
        self.at = 0
        return True

    def _read(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        with open_bytes(self._path) as stream:
            while raw := stream.read(CHUNK_BYTES):
                self._log.advance(len(raw))
                yield self._decoded(decoder, raw, final=False)
        yield self._decoded(decoder, b"", final=True)

    def _decoded(self, decoder: codecs.IncrementalDecoder, raw: bytes, final: bool) -> str:
        try:
            return decoder.decode(raw, final)
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path.name}: not UTF-8 ({error.reason})", _HINT) from error


def _checked(value: Mapping[str, Any], vocabulary: Vocabulary) -> ReadyInstance:
    """An instance whose every field fits. Raises _Fault."""
    cells = {name: _numbers(value, name, MAX_CELLS) for name in _CELLS}
    predictions = {name: _numbers(value, name, MAX_CELLS) for name in _PREDICTIONS}
    for group in (cells, predictions):
        if len({len(numbers) for numbers in group.values()}) > 1:
            sizes = ", ".join(f"{name} {len(numbers)}" for name, numbers in group.items())
            raise _Fault(f"lists of different lengths ({sizes})")
    _within(cells["input_ids"], "input_ids", vocabulary.size)
    _within(cells["input_mask"], "input_mask", 2)
    _within(cells["segment_ids"], "segment_ids", 2)
    mask = cells["input_mask"]
    length = int(mask.sum())
    if not mask[:length].all():
        raise _Fault("input_mask is not ones followed by zeros")
    if length < 2 or cells["input_ids"][0] != vocabulary.cls_id:
        first = int(cells["input_ids"][0]) if len(mask) else None
        raise _Fault("input_ids does not begin with [CLS] of the model's vocabulary", first, str(vocabulary.cls_id))
    positions, labels = _predicted(predictions, length, vocabulary.size)
    label = _next_label(value)
    return ReadyInstance(cells["input_ids"][:length], cells["segment_ids"][:length], positions, labels, label)


def _predicted(predictions: Mapping[str, np.ndarray], length: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and true ids without their padding, by position."""
    positions, labels = (predictions[name] for name in _PREDICTIONS)
    _within(positions, "masked_lm_positions", length)
    _within(labels, "masked_lm_ids", vocab_size)
    kept = positions > 0  # position 0 is [CLS]: there it is padding
    if labels[~kept].any():
        raise _Fault("masked_lm_positions predicts [CLS] at position 0", int(labels[~kept].max()))
    positions, labels = positions[kept], labels[kept]
    if len(positions) == 0 or len(np.unique(positions)) < len(positions):
        raise _Fault("masked_lm_positions names no position, or one twice", positions.tolist())
    order = np.argsort(positions)
    return positions[order], labels[order]


def _next_label(value: Mapping[str, Any]) -> int:
    label = value.get("next_sentence_labels")
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if type(label) is not int or label not in (0, 1):
        raise _Fault("next_sentence_labels", label, "0 (follows) or 1 (random)")
    return label


def _numbers(value: Mapping[str, Any], name: str, most: int) -> np.ndarray:
    numbers = value.get(name)
    if not isinstance(numbers, list) or len(numbers) > most or any(type(number) is not int for number in numbers):
        shown = numbers if name in value else "missing"
        raise _Fault(name, shown, f"a list of at most {most} whole numbers")
    try:
        return np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise _Fault(f"{name} holds a number of more than 63 bits") from error


def _within(numbers: np.ndarray, name: str, bound: int) -> None:
    bad = numbers[(numbers < 0) | (numbers >= bound)]
    if len(bad):
        raise _Fault(name, int(bad[0]), f"0 to {bound - 1}")
