"""Safetensors as they are stored: one file, or several with an index (model.safetensors.index.json); also bfloat16, which NumPy lacks."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from configs.errors import DataError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 64 << 20


def bfloat16_as_float32(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 given as its bits (uint16): the upper half of a float32."""
    return np.asarray(np.left_shift(bits.astype(np.uint32), np.uint32(16))).view(np.float32)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights; empty when it has none. Raises DataError for an index that cannot be right."""
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    index = folder / INDEX_FILE
    return indexed_files(index, ".safetensors") if index.is_file() else ()


def indexed_files(index: Path, suffix: str) -> tuple[Path, ...]:
    """The files that an index (`weight_map`: tensor name -> file in the same folder) names. DataError when one is missing."""
    try:
        if index.stat().st_size > MAX_HEADER_BYTES:
            raise ValueError(f"more than {MAX_HEADER_BYTES} bytes")
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        wrong = [name for name in names if Path(name).name != name or not name.endswith(suffix)]
        if wrong or not names:
            raise ValueError(f"{wrong[0]!r} is no {suffix} file beside it" if wrong else "it names no file")
    except OSError as error:
        raise DataError(f"{index}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: not an index of weight files ({error})") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise DataError(
            f"{index}: names {len(names)} files; missing: {', '.join(missing[:5])}", "copy or download the folder again"
        )
    return tuple(index.parent / name for name in names)


def read_stored(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file under their own names (bfloat16 as float32). Raises DataError."""
    try:
        with safe_open(str(path), "np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            arrays = {name: np.asarray(file.get_tensor(name)) for name, kind in kinds.items() if kind != "BF16"}
    except (SafetensorError, OSError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as safetensors: {error}", "copy the file again from its source"
        ) from error
    halves = [name for name, kind in kinds.items() if kind == "BF16"]
    return {**arrays, **_read_bfloat16(path, halves)} if halves else arrays


def read_header(path: Path) -> dict[str, Any]:
    """The entries (dtype, shape, data_offsets) of a safetensors file, checked against its size. DataError if damaged."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        tensors = {key: value for key, value in header.items() if key != "__metadata__"}
        end = max(value["data_offsets"][1] for value in tensors.values())
        if size != 8 + length + end:
            raise ValueError(f"{size} bytes, the header says {8 + length + end}")
        return tensors
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise DataError(
            f"{path}: damaged or truncated safetensors file ({error})", "copy or download it again"
        ) from error


def _read_bfloat16(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Tensors of a file that safetensors has checked."""
    entries: Mapping[str, Any] = read_header(path)
    arrays = {}
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        for name in names:
            start, end = entries[name]["data_offsets"]
            stream.seek(8 + length + start)
            bits = np.frombuffer(stream.read(end - start), dtype="<u2")
            arrays[name] = bfloat16_as_float32(bits).reshape(entries[name]["shape"])
    return arrays
