"""Paddle's weight files (`paddle.save`, .pdparams): one pickle of a dictionary of NumPy arrays. Neither pickle nor Paddle reads it.

Arrays are pickled as `_reconstruct` plus a state (version, shape, type, column order, elements). A tensor inside a larger object is
a pair (name, array). bfloat16 is stored as uint16.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from trainers.importing.pickled import MAX_SHARING, Budget, Grammar, Symbol, ordered_dict, read_pickle
from trainers.model.stored import bfloat16_as_float32

_TYPES = frozenset(("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1"))
_SLICES_KEY = "UnpackBigParamInfor@@"


class _Type:
    """Stands for a numpy.dtype."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("a data type without byte order")
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for a numpy.ndarray, which is made empty and filled afterwards."""

    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array without content")
        _, shape, kind, by_columns, content = state
        sizes = shape if isinstance(shape, tuple) else ()
        if not isinstance(kind, _Type) or not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("an array without shape and type")
        elements = np.frombuffer(_as_bytes(content), dtype=kind.dtype)
        self.value = elements.reshape(sizes, order="F" if by_columns else "C")


def read_paddle_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by their names (bfloat16 as float32); nothing of the file is run. Raises DataError."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            value = read_pickle(content, _grammar(Budget(len(content))), str(path))
            return _arrays(value, Budget(MAX_SHARING * len(content)))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged, or not written by paddle.save ({error})", "copy it again from its source"
        ) from error


def _grammar(budget: Budget) -> Grammar:
    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        """Protocol 2 has no bytes: they are text that is encoded when read."""
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes in another form than latin1")
        budget.take(len(text))
        return text.encode("latin1")

    def data_type(code: Any, *_: Any) -> _Type:
        if code not in _TYPES:
            raise ValueError(f"an array of type {code!r}")
        return _Type(code)

    functions: dict[Symbol, Callable[..., Any]] = {
        Symbol("collections", "OrderedDict"): ordered_dict,
        Symbol("_codecs", "encode"): encode,
        Symbol("numpy", "dtype"): data_type,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        functions[Symbol(module, "_reconstruct")] = lambda *_: _Array()
    for module in ("builtins", "__builtin__"):
        functions[Symbol(module, "tuple")] = _pair
    return Grammar(
        functions, frozenset((Symbol("numpy", "ndarray"),)), builders={_Array: _Array.build, _Type: _Type.build}
    )


def _pair(items: Any) -> tuple[Any, ...]:
    if not isinstance(items, (tuple, list)):
        raise ValueError("a tuple of something else than a list")
    return tuple(items)


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, str):  # written by Python 2
        return content.encode("latin1")
    if not isinstance(content, bytes):
        raise ValueError("an array whose elements are no bytes")
    return content


def _arrays(value: Any, budget: Budget) -> dict[str, np.ndarray]:
    if not isinstance(value, dict):
        raise ValueError("no dictionary")
    arrays = {}
    for key, item in value.items():
        inner = item[1] if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) else item
        if isinstance(inner, _Array) and inner.value is not None:
            budget.take(inner.value.nbytes)
            arrays[str(key)] = _floats(inner.value)
    for name, parts in (value.get(_SLICES_KEY) or {}).items():
        arrays[str(name)] = np.concatenate([arrays.pop(part) for part in parts["slices"]]).reshape(parts["OriginShape"])
    return arrays


def _floats(array: np.ndarray) -> np.ndarray:
    return bfloat16_as_float32(array) if array.dtype == np.uint16 else array
