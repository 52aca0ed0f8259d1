"""PyTorch's weight files (`torch.save`): the zip form, and the form before version 1.6. Neither needs PyTorch here.

Zip form: PREFIX/data.pkl (the pickle), PREFIX/data/KEY (the raw elements of one storage each, not compressed), PREFIX/byteorder.
Older form: four pickles (magic number, version, machine, the object), a pickled list of storage keys, then per storage the
number of its elements (int64) and the elements. A tensor is a view of a storage: offset, sizes and strides in elements.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from trainers.importing.pickled import MAX_SHARING, Budget, Grammar, Symbol, ordered_dict, read_pickle
from trainers.model.stored import bfloat16_as_float32

BFLOAT16 = "bf16"
_STORAGES: Mapping[str, str] = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_PICKLE_BYTES = 256 << 20
_MAX_DIMENSIONS = 8
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training programs put the weights in a larger dictionary."""


@dataclass(frozen=True)
class Storage:
    """Elements that tensors are views of; read only after the pickle."""

    key: str
    kind: str
    num_elements: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.kind == BFLOAT16 else self.kind)


@dataclass(frozen=True)
class View:
    """A tensor: a part of a storage. Sizes, strides and offset in elements."""

    storage: Storage
    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a saved state by their names (bfloat16 as float32); nothing of the file is run. Raises DataError."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, str(path))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read_older(content, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror or error}") from error
    except (
        ValueError,
        KeyError,
        RuntimeError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise DataError(
            f"{path}: damaged, or not written by torch.save ({error})", "copy it again from its source"
        ) from error


def _read_zip(archive: zipfile.ZipFile, where: str) -> dict[str, np.ndarray]:
    entries = archive.infolist()
    by_name = {entry.filename: entry for entry in entries}
    pickles = [name for name in by_name if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(by_name) != len(entries) or len(pickles) != 1:
        raise ValueError("an archive without exactly one data.pkl, or with a name twice")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("a compressed entry, which torch.save does not write")
    prefix = pickles[0].removesuffix("data.pkl")
    order = by_name.get(f"{prefix}byteorder")
    if order is not None and archive.read(order)[:8] != b"little":
        raise ValueError("not little-endian")
    if by_name[pickles[0]].file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"a pickle of more than {_MAX_PICKLE_BYTES} bytes")
    with archive.open(pickles[0]) as stream:
        value = read_pickle(stream, _grammar(5, {}), where)

    def content(storage: Storage) -> bytes:
        entry = by_name[f"{prefix}data/{storage.key}"]
        if entry.file_size != storage.num_elements * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} has {entry.file_size} bytes for {storage.num_elements} elements")
        return archive.read(entry)

    return _Arrays(content, sum(entry.file_size for entry in entries)).of(value)


def _read_older(content: mmap.mmap, where: str) -> dict[str, np.ndarray]:
    plain = Grammar({})
    if read_pickle(content, plain, where) != _MAGIC or read_pickle(content, plain, where) != _VERSION:
        raise ValueError("no magic number, or another version")
    machine = read_pickle(content, plain, where)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("not little-endian")
    storages: dict[str, Storage] = {}
    value = read_pickle(content, _grammar(6, storages), where)
    keys = read_pickle(content, plain, where)
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        (num_elements,) = struct.unpack("<q", content.read(8))
        storage = storages[key]
        if num_elements != storage.num_elements:
            raise ValueError(f"storage {key} has {num_elements} elements, its tensors say {storage.num_elements}")
        places[key] = (content.tell(), num_elements * storage.dtype.itemsize)
        if content.tell() + places[key][1] > len(content):
            raise ValueError("cut off")
        content.seek(places[key][1], 1)

    def read(storage: Storage) -> bytes:
        start, size = places[storage.key]
        return content[start : start + size]

    return _Arrays(read, len(content)).of(value)


def _grammar(persistent_length: int, storages: dict[str, Storage]) -> Grammar:
    """What a file of tensors may name; a storage is a persistent id of 5 values, or 6 in the older form, and noted in `storages`."""

    def storage(value: Any) -> Storage:
        if not isinstance(value, tuple) or len(value) != persistent_length or value[0] != "storage":
            raise ValueError("a reference to something that is no storage")
        kind, key, _, num_elements = value[1:5]
        if not isinstance(kind, Symbol) or not isinstance(key, str) or not _is_size(num_elements):
            raise ValueError("a storage without type, key or size")
        if persistent_length == 6 and value[5] is not None:
            raise ValueError("a storage that is a view of another")
        made = Storage(key, _STORAGES[kind.name], num_elements)
        if storages.setdefault(key, made) != made:
            raise ValueError(f"storage {key} with two types or sizes")
        return made

    functions: dict[Symbol, Callable[..., Any]] = {
        Symbol("collections", "OrderedDict"): ordered_dict,
        Symbol("torch._utils", "_rebuild_tensor"): _view,
        Symbol("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: _view(*arguments[:4]),
        Symbol("torch._utils", "_rebuild_parameter"): lambda view, *_: _checked(view),
    }
    return Grammar(functions, frozenset(Symbol("torch", name) for name in _STORAGES), storage)


def _view(storage: Any, offset: Any, sizes: Any, strides: Any) -> View:
    whole = isinstance(sizes, tuple) and isinstance(strides, tuple) and len(sizes) == len(strides) <= _MAX_DIMENSIONS
    if not isinstance(storage, Storage) or not whole or not all(map(_is_size, (offset, *sizes, *strides))):
        raise ValueError("a tensor without storage, sizes and strides")
    return View(storage, offset, sizes, strides)


def _checked(view: Any) -> View:
    if not isinstance(view, View):
        raise ValueError("a parameter that is no tensor")
    return view


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


class _Arrays:
    """Turns views into arrays, reading every storage once."""

    def __init__(self, content: Callable[[Storage], bytes], file_bytes: int) -> None:
        self._content = content
        self._budget = Budget(MAX_SHARING * file_bytes)
        self._read: dict[Storage, np.ndarray] = {}

    def of(self, value: Any) -> dict[str, np.ndarray]:
        """The tensors of a dictionary, or of the dictionary in it that holds the weights."""
        inner = [value, *(value.get(key) for key in _STATE_KEYS)] if isinstance(value, dict) else []
        for state in inner:
            views = (
                {str(key): each for key, each in state.items() if isinstance(each, View)}
                if isinstance(state, dict)
                else {}
            )
            if views:
                return {name: self._array(view) for name, view in views.items()}
        raise ValueError("no dictionary of tensors")

    def _array(self, view: View) -> np.ndarray:
        storage = view.storage
        count = math.prod(view.sizes)
        last = view.offset + sum((size - 1) * stride for size, stride in zip(view.sizes, view.strides, strict=True))
        if count and (last >= storage.num_elements or count > storage.num_elements):
            raise ValueError(f"a tensor of {count} elements reaches beyond its storage of {storage.num_elements}")
        self._budget.take(count * storage.dtype.itemsize)
        if not count:
            return np.zeros(view.sizes, dtype=np.float32)
        if storage not in self._read:
            self._read[storage] = np.frombuffer(self._content(storage), dtype=storage.dtype)
        size = storage.dtype.itemsize
        strides = tuple(stride * size for stride in view.strides)
        elements = self._read[storage][view.offset :]
        strided = np.lib.stride_tricks.as_strided(elements, view.sizes, strides, writeable=False)
        array: np.ndarray = np.ascontiguousarray(strided).reshape(view.sizes)
        return bfloat16_as_float32(array) if storage.kind == BFLOAT16 else array
