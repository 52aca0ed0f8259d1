"""Pickles written by hand, instruction by instruction, as PyTorch and Paddle write them; and hostile ones. Needs neither library."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

KINDS = {
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<f8": "DoubleStorage",
    "<i8": "LongStorage",
    "<u2": "BFloat16Storage",
}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def sizes(values: Sequence[int]) -> bytes:
    return tuple_of(*map(number, values))


def storage(kind: str, key: str, num_elements: int, older: bool = False) -> bytes:
    view = (b"N",) if older else ()
    return (
        tuple_of(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(num_elements), *view)
        + b"Q"
    )


def tensor(stored: bytes, offset: int, shape: Sequence[int], strides: Sequence[int]) -> bytes:
    return REBUILD + tuple_of(stored, number(offset), sizes(shape), sizes(strides), b"\x89", ORDERED_DICT) + b"R"


def dictionary(items: Mapping[str, bytes], start: bytes = ORDERED_DICT) -> bytes:
    return start + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def write_zip(path: Path, body: bytes, storages: Mapping[str, bytes], **more: bytes) -> Path:
    """The zip form of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(body))
        archive.writestr("archive/byteorder", more.pop("byteorder", b"little"))
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def bits(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers: bfloat16, cut off."""
    return (np.ascontiguousarray(array, dtype="<f4").view("<u4") >> 16).astype("<u2")


def torch_state(
    arrays: Mapping[str, np.ndarray], older: bool = False
) -> tuple[bytes, dict[str, bytes], dict[str, int]]:
    """(pickle body, content of each storage, its elements) of a state with one storage per array, with PyTorch's _metadata."""
    items, contents, counts = {}, {}, {}
    for index, (name, array) in enumerate(arrays.items()):
        kind = KINDS[array.dtype.str]
        strides = [stride // array.itemsize for stride in array.strides]
        items[name] = tensor(storage(kind, str(index), array.size, older), 0, array.shape, strides)
        contents[str(index)] = array.tobytes("C" if array.flags.c_contiguous else "F")
        counts[str(index)] = array.size
    metadata = b"}" + text("_metadata") + dictionary({"": b"}" + text("version") + number(1) + b"s"}) + b"sb"
    return dictionary(items) + metadata, contents, counts


def write_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """A pytorch_model.bin."""
    body, contents, _ = torch_state(arrays)
    return write_zip(path, body, contents)


def write_older_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """The form of PyTorch before 1.6."""
    body, contents, counts = torch_state(arrays, older=True)
    magic = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
    machine = b"}" + text("little_endian") + b"\x88s"
    keys = b"](" + b"".join(map(text, contents)) + b"e"
    parts = [pickled(each) for each in (magic, number(1001), machine, body, keys)]
    parts += [struct.pack("<q", counts[key]) + content for key, content in contents.items()]
    path.write_bytes(b"".join(parts))
    return path


def marker(path: Path) -> bytes:
    """Arguments of a call that leaves a file behind, if it is ever made."""
    return tuple_of(text(f"touch {path}"))
