"""Predictions as lines: TSV or JSON, to standard output or to a file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from configs.errors import CannotWriteError
from trainers.engine.files import sync_directory
from trainers.predicting.inputs import Item

_BREAKS = str.maketrans("\t\r\n", "   ")


def header_line(label_names: Sequence[str], pairs: bool) -> str:
    """The first line of a TSV with all probabilities."""
    chances = [f"p({name})" for name in label_names]
    return "\t".join(["label", "probability", *chances, "text", *(["text_pair"] if pairs else [])])


def tsv_line(item: Item, chances: np.ndarray, label_names: Sequence[str], every: bool) -> str:
    """label, probability, [all probabilities,] text[, second text]; line breaks and TABs in texts become spaces."""
    best = int(chances.argmax())
    numbers = [f"{chance:.6f}" for chance in chances.tolist()] if every else []
    texts = [text.translate(_BREAKS) for text in item if text is not None]
    return "\t".join([label_names[best], f"{chances[best]:.4f}", *numbers, *texts])


def json_line(item: Item, chances: np.ndarray, label_names: Sequence[str]) -> str:
    """An object with label, probability, all probabilities and the text or texts."""
    best = int(chances.argmax())
    every = dict(zip(label_names, chances.tolist(), strict=True))
    pair = {} if item.pair is None else {"text_pair": item.pair}
    name = label_names[best]
    return json.dumps({"label": name, "probability": every[name], "probabilities": every, "text": item.text, **pair})


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that gets its name when everything has been written. Raises CannotWriteError."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    if not path.parent.is_dir():
        raise CannotWriteError(
            f"cannot write {path}: there is no folder {path.parent}",
            "make the folder, or name another file with --output",
        )
    if path.is_dir():
        raise CannotWriteError(f"cannot write {path}: it is a folder", "name a file with --output")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # the user's own file: with the mode of any file that the user makes
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise CannotWriteError(
            f"cannot write {path}: {error.strerror or error}",
            "make room or mend the permissions, or name another file with --output",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
