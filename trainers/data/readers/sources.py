"""Where a reader's bytes come from: a file, or a member of a .tgz archive that is read in place and never unpacked."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from configs.errors import DataError

ARCHIVE_SUFFIXES = (".tgz", ".tar.gz")
_MAX_MEMBERS_SHOWN = 12


@dataclass(frozen=True)
class ArchiveMember:
    """The regular file of this name in a gzipped tar archive, at its top or one folder below."""

    archive: Path
    member: str

    @property
    def name(self) -> str:
        """For messages: archive/member."""
        return f"{self.archive.name}/{self.member}"


Source = Path | ArchiveMember
Opened = tuple[BinaryIO, Callable[[], int]]
"""(stream, bytes of the file on disk that were read so far)"""


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read; DataError when that is not possible."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


@contextmanager
def open_source(source: Source) -> Iterator[Opened]:
    """Open a file or an archive's member to read forwards. DataError when it is missing, or the archive is damaged."""
    if isinstance(source, ArchiveMember):
        with _open_member(source) as opened:
            yield opened
    else:
        with open_bytes(source) as stream:
            yield stream, stream.tell if stream.seekable() else lambda: 0  # a pipe has no position


@contextmanager
def _open_member(source: ArchiveMember) -> Iterator[Opened]:
    try:
        # gzip rather than tarfile's own "r|gz", which does not verify the checksum
        with (
            open_bytes(source.archive) as packed,
            gzip.GzipFile(fileobj=packed) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|") as tar,
        ):
            yield cast(BinaryIO, _find_member(tar, source)), packed.tell
            while unzipped.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{source.name}: damaged or truncated archive ({error})", "download or copy it again"
        ) from error


def _find_member(tar: tarfile.TarFile, source: ArchiveMember) -> object:
    seen = []
    for member in tar:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.isreg() and len(parts) in (1, 2) and parts[-1] == source.member:
            return tar.extractfile(member)
        seen.append(member.name)
    held = ", ".join(seen[:_MAX_MEMBERS_SHOWN]) or "nothing"
    raise DataError(f"{source.archive}: no {source.member} in it; it holds {held}", "is it the right archive?")
