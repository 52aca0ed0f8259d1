"""Large Movie Review Dataset (Maas et al. 2011): aclImdb/{train,test}/{pos,neg}/*.txt and train/unsup, as a folder or inside its tar.gz.

`<br />`, the line break of the web pages the reviews came from, becomes a space. Rows are in the same order from a folder and from an
archive: negative before positive, then by review number.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from configs.errors import DataError
from trainers.data.download import Fetch
from trainers.data.readers.base import Dataset, ReadLog, Row, existing, find_one, list_folder
from trainers.data.readers.sources import open_bytes
from trainers.data.readers.tab_form import TAB_NAMES, read_tab_form

LABELS = ("neg", "pos")
ARCHIVE = "aclImdb_v1.tar.gz"
MAX_REVIEW_BYTES = 1_000_000
"""A larger member is no review: it is a bad row, and is not read whole into memory."""
_VERSION = 1
_EXPECTED = f"the folder aclImdb, {ARCHIVE}, or a folder that holds one of them"
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_MEMBER = re.compile(r"(?:^|/)(train|test)/(pos|neg|unsup)/(\d+)_(\d+)\.txt$")
_ALLOWED_NAME = "NUMBER_RATING.txt"
_GROUPS = {"train": ("neg", "pos"), "test": ("neg", "pos"), "unsup": ("unsup",)}


def open_imdb(path: str | None, fetch: Fetch) -> Dataset:
    """IMDb from a folder, an archive (read in place), `0/1<TAB>text` files, or downloaded."""
    place = existing(path, _EXPECTED) if path is not None else fetch("imdb", ARCHIVE)
    if place.is_file():
        return _open_archive(place)
    folder = next((each for each in (place, place / "aclImdb") if (each / "train").is_dir()), None)
    if folder is not None:
        return _open_folder(folder)
    archives = sorted(place.glob("aclImdb*.tar.gz"))
    if archives:
        return _open_archive(archives[0])
    tables = {split: find_one(place, names) for split, names in TAB_NAMES.items()}
    if all(tables.values()):
        return _open_tables({split: file for split, file in tables.items() if file is not None})
    raise DataError(
        f"data.path: {place} is no IMDb data; it holds {list_folder(place)}", f"set data.path to {_EXPECTED}"
    )


def _open_archive(archive: Path) -> Dataset:
    def read(split: str, log: ReadLog) -> Iterator[Row]:
        return _rows(_archive_reviews(archive, split), split, archive.stat().st_size, log)

    return Dataset("imdb", _VERSION, {split: [archive] for split in _GROUPS}, read, LABELS)


def _open_folder(folder: Path) -> Dataset:
    splits: dict[str, Sequence[Path]] = {}
    for split, groups in _GROUPS.items():
        places = [folder / ("test" if split == "test" else "train") / group for group in groups]
        missing = [place for place in places if not place.is_dir()]
        if missing and split != "unsup":
            raise DataError(
                f"data.path: {folder} lacks {missing[0].relative_to(folder)}/; it holds {list_folder(missing[0].parent)}"
                if missing[0].parent.is_dir()
                else f"data.path: {folder} lacks {missing[0].relative_to(folder)}/; it holds {list_folder(folder)}",
                f"set data.path to {_EXPECTED}",
            )
        if not missing:
            splits[split] = sorted(path for place in places for path in place.glob("*.txt"))

    def read(split: str, log: ReadLog) -> Iterator[Row]:
        reviews = _folder_reviews(folder, splits[split], log)
        return _rows(reviews, split, sum(len(content) for *_, content in reviews), log)

    return Dataset("imdb", _VERSION, splits, read, LABELS, folder.parent)


def _open_tables(files: dict[str, Path]) -> Dataset:
    def read(split: str, log: ReadLog) -> Iterator[Row]:
        numbers = {"0": 0, "1": 1, "neg": 0, "pos": 1}
        for row in read_tab_form(files[split], "utf-8", numbers.get, "0 or neg, 1 or pos", log):
            yield row._replace(text=_LINE_BREAK.sub(" ", row.text))

    return Dataset("imdb", _VERSION, {split: [file] for split, file in files.items()}, read, LABELS)


Review = tuple[str, str, int, bytes]
"""(group, name, review number, content)"""


def _rows(reviews: list[Review], split: str, num_bytes: int, log: ReadLog) -> Iterator[Row]:
    """The reviews in their order. As all were read before, the `num_bytes` of their files are reported bit by bit here."""
    if not reviews:
        raise DataError(f"IMDb: no reviews for the split '{split}'", f"set data.path to {_EXPECTED}")
    for group, name, _, content in sorted(reviews, key=lambda review: (review[0], review[2], review[1])):
        log.advance(num_bytes // len(reviews))
        if len(content) > MAX_REVIEW_BYTES:
            log.bad_row(name, 0, f"more than {MAX_REVIEW_BYTES} bytes")
            continue
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            log.bad_row(name, 0, f"byte 0x{content[error.start]:02x} at position {error.start} is not utf-8")
            continue
        text = _LINE_BREAK.sub(" ", text).strip()
        if log.good_text(text, name, 0):
            yield Row(text, None, LABELS.index(group) if group in LABELS else None, name, 0)


def _folder_reviews(folder: Path, paths: Sequence[Path], log: ReadLog) -> list[Review]:
    reviews = []
    for path in paths:
        name = f"aclImdb/{path.relative_to(folder).as_posix()}"
        match = _MEMBER.search(name)
        if match is None:
            log.bad_row(name, 0, "unexpected file name", path.name, _ALLOWED_NAME)
            continue
        with open_bytes(path) as stream:
            content = stream.read(MAX_REVIEW_BYTES + 1)
        reviews.append((match[2], name, int(match[3]), content))
    return reviews


def _archive_reviews(archive: Path, split: str) -> list[Review]:
    half = "test" if split == "test" else "train"
    reviews = []
    try:
        # gzip rather than tarfile's own "r|gz", which does not verify the checksum
        with (
            open_bytes(archive) as stream,
            gzip.GzipFile(fileobj=stream) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|") as tar,
        ):
            for member in tar:
                match = _MEMBER.search(member.name)
                if match is None or not member.isreg() or match[1] != half or match[2] not in _GROUPS[split]:
                    continue
                content = tar.extractfile(member)
                if content is None:
                    raise AssertionError("a regular member has content")
                reviews.append((match[2], member.name, int(match[3]), content.read(MAX_REVIEW_BYTES + 1)))
            while unzipped.read(1 << 20):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{archive}: damaged or truncated archive after {len(reviews)} reviews of '{split}' ({error})",
            "download or copy it again",
        ) from error
    return reviews
