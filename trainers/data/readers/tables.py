"""Generic tables: TSV (quotes are ordinary characters), CSV (quoted fields, doubled quotes) and JSON Lines, with named columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.schema import Columns, DataConfig
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, list_folder
from trainers.data.readers.lines import read_lines, read_records

_SPLITS = ("train", "test", "validation", "unsup")
_ALIASES: Mapping[str, Sequence[str]] = {"validation": ("validation", "valid", "dev")}


def open_table(data: DataConfig) -> Dataset:
    """The splits of a generic data set.

    The files that data.files names, else SPLIT.tsv, .csv or .jsonl in the folder; a path to a file is the training split.
    """
    if data.path is None:
        raise AssertionError("the schema asks generic data sets for a path")
    place = existing(
        data.path, f"a .{data.dataset} file, or a folder with train.{data.dataset} and test.{data.dataset}"
    )
    files = _find_files(place, data)

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        columns = data.columns if split != "unsup" else data.columns.model_copy(update={"label": None})
        return _read(files[split], data, columns, log)

    options = {"columns": data.columns.model_dump(), "header": data.header, "encoding": data.encoding}
    splits = {split: [path] for split, path in files.items()}
    return Dataset(data.dataset, 2, splits, read, None, options=options)


def _find_files(place: Path, data: DataConfig) -> dict[str, Path]:
    if place.is_file():
        return {"train": place, **_named_files(place.parent, data)}
    files = _named_files(place, data)
    if not files:
        for split in _SPLITS:
            for name in _ALIASES.get(split, (split,)):
                path = place / f"{name}.{data.dataset}"
                if path.is_file():
                    files.setdefault(split, path)
    if "train" not in files and "unsup" not in files:
        raise DataError(
            f"data.path: {place} has no training file train.{data.dataset}; it holds {list_folder(place)}",
            "name the files in data.files (train, test, validation, unsup)",
        )
    return files


def _named_files(folder: Path, data: DataConfig) -> dict[str, Path]:
    files = {}
    for split in _SPLITS:
        name = getattr(data.files, split)
        if name is None:
            continue
        if not (folder / name).is_file():
            raise DataError(f"data.files.{split}: {folder / name} is no file; {folder} holds {list_folder(folder)}")
        files[split] = folder / name
    return files


def _read(path: Path, data: DataConfig, columns: Columns, log: ReadLog) -> Iterator[Row]:
    roles = {"text": columns.text, "text_pair": columns.text_pair, "label": columns.label}
    wanted = {role: column for role, column in roles.items() if column is not None}
    source = (
        _jsonl_values(path, data, wanted, log) if data.dataset == "jsonl" else _table_values(path, data, wanted, log)
    )
    for line, values in source:
        row = _row(path.name, line, values, columns, log)
        if row is not None:
            yield row


def _row(name: str, line: int, values: Mapping[str, str], columns: Columns, log: ReadLog) -> Row | None:
    good = log.good_text(values["text"], name, line, f"column '{columns.text}'")
    pair = values.get("text_pair")
    if pair is not None:
        good = log.good_text(pair, name, line, f"column '{columns.text_pair}'") and good
    label = values.get("label")
    if label is not None and any(sign in label.strip() for sign in "\t\r\n"):
        log.bad_row(name, line, "a label cannot hold tabs or line ends", label)
        good = False
    if label is not None and not label.strip():
        log.bad_row(name, line, f"column '{columns.label}' is empty", allowed="a label")
        good = False
    return Row(values["text"], pair, None if label is None else label.strip(), name, line) if good else None


def _table_values(
    path: Path, data: DataConfig, wanted: Mapping[str, str | int], log: ReadLog
) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter, quoted = ("\t", False) if data.dataset == "tsv" else (",", True)
    indices: dict[str, int] | None = None
    width = 0
    for line, fields in read_records(path, data.encoding, log, delimiter, quoted):
        if indices is None:
            width = len(fields)
            indices = _column_indices(path, line, fields, wanted, data.header)
            if data.header:
                continue
        if len(fields) != width:
            log.bad_row(
                path.name, line, f"{len(fields)} columns", delimiter.join(fields), f"{width}, as in the first row"
            )
            continue
        yield line, {role: fields[index] for role, index in indices.items()}


def _column_indices(
    path: Path, line: int, fields: Sequence[str], wanted: Mapping[str, str | int], header: bool
) -> dict[str, int]:
    """Where each wanted column is; DataError when it is not there."""
    indices = {}
    for role, column in wanted.items():
        if isinstance(column, int):
            index = column if 0 <= column < len(fields) else None
            there = f"columns 0 to {len(fields) - 1}"
        else:
            index = fields.index(column) if header and column in fields else None
            there = ", ".join(fields) if header else "no header (data.header: false): give a 0-based number"
        if index is None:
            raise DataError(
                f"{path.name}:{line}: data.columns.{role}: no column {column!r}; there is: {there}",
                f"set data.columns.{role} to one of them" + (", or null" if role != "text" else ""),
            )
        indices[role] = index
    return indices


def _jsonl_values(
    path: Path, data: DataConfig, wanted: Mapping[str, str | int], log: ReadLog
) -> Iterator[tuple[int, dict[str, str]]]:
    for line, text in read_lines(path, data.encoding, log):
        if not text.strip():
            continue
        try:
            record: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            log.bad_row(path.name, line, f"not JSON ({error})", text, "one JSON object per line")
            continue
        if not isinstance(record, dict):
            log.bad_row(path.name, line, "not a JSON object", text, "one JSON object per line")
            continue
        values = {role: _json_text(record.get(str(column)), role) for role, column in wanted.items()}
        missing = [f"'{wanted[role]}'" for role, value in values.items() if value is None]
        if missing:
            log.bad_row(
                path.name,
                line,
                f"no usable {', '.join(missing)}",
                sorted(record),
                "text columns hold strings, labels strings or whole numbers",
            )
            continue
        yield line, {role: value for role, value in values.items() if value is not None}


def _json_text(value: object, role: str) -> str | None:
    if isinstance(value, str):
        return value
    if role == "label" and isinstance(value, (bool, int)):
        return str(value)
    return None
