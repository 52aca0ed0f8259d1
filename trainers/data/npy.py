"""Plain .npy files, written as a stream and read as memory maps. Never pickled."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

HEADER_BYTES = 128


class NpyWriter:
    """Appends to a one-dimensional .npy file whose length is known only at the end: the header is written on close."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.length = 0
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._file.write(b"\0" * HEADER_BYTES)

    def append(self, values: np.ndarray) -> None:
        """Write the values (any array or sequence that fits the dtype) behind those already there."""
        array = np.ascontiguousarray(values, dtype=self.dtype)
        self._file.write(array.data)
        self.length += len(array)

    def close(self) -> None:
        """Write the header and close. The file is complete only after this."""
        text = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({self.length},), }}"
        magic = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(magic + text.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n")
        self._file.close()

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._file.close()


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write one array."""
    with NpyWriter(path, values.dtype.str) as writer:
        writer.append(values)


def map_npy(path: Path) -> np.ndarray:
    """Memory-map an array read-only."""
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def id_dtype(vocab_size: int) -> str:
    """The smallest stored type for token ids: uint16 below 65,536 vocabulary entries, else uint32."""
    return "uint16" if vocab_size < 65536 else "uint32"
