"""IMDb from its archive, its folder and the table form."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from tests.unit.data.helpers import no_fetch, shared
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row

REVIEWS = {
    "train/pos/10_8.txt": "Good<br /><br />film",
    "train/pos/9_7.txt": "Fine",
    "train/neg/1_2.txt": "Bad<br/>film",
    "train/unsup/0_0.txt": "Any",
    "test/pos/0_10.txt": "Best",
    "test/neg/0_1.txt": "Wörst",
}


def make_folder(tmp_path: Path) -> Path:
    for name, text in REVIEWS.items():
        path = tmp_path / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "aclImdb" / "README").write_text("about")
    return tmp_path / "aclImdb"


def make_archive(path: Path, extra: dict[str, bytes] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        contents = {name: text.encode() for name, text in reversed(REVIEWS.items())} | (extra or {})
        for name, content in contents.items():
            member = tarfile.TarInfo(f"aclImdb/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read(path: Path, split: str) -> list[Row]:
    log = ReadLog()
    rows = list(open_dataset(DataConfig(dataset="imdb", path=str(path)), no_fetch).read(split, log))
    log.finish()
    return rows


def test_folder_and_archive_give_the_same_rows(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    archive = make_archive(tmp_path / "aclImdb_v1.tar.gz")
    for split in ("train", "test", "unsup"):
        assert read(folder, split) == read(archive, split)
    assert read(folder.parent, "train") == read(folder, "train")
    (tmp_path / "holder").mkdir()
    archive.rename(tmp_path / "holder" / archive.name)
    assert read(tmp_path / "holder", "test") == read(folder, "test")
    assert read(folder, "train") == [
        Row("Bad film", None, 0, "aclImdb/train/neg/1_2.txt", 0),
        Row("Fine", None, 1, "aclImdb/train/pos/9_7.txt", 0),
        Row("Good  film", None, 1, "aclImdb/train/pos/10_8.txt", 0),
    ]
    assert read(folder, "unsup")[0].label is None


def test_the_sample_archive() -> None:
    archive = shared("imdb/aclImdb_sample.tar.gz")
    assert Counter(row.label for row in read(archive, "train")) == {0: 2500, 1: 2500}
    assert Counter(row.label for row in read(archive.parent, "test")) == {0: 1000, 1: 1000}
    unsup = read(archive, "unsup")
    assert len(unsup) == 5000
    assert not any("<br" in row.text for row in unsup)


def test_the_table_form(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1\tGood<br />film\n0\tBad\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("2\tWhat\n", encoding="utf-8")
    assert [(row.label, row.text) for row in read(tmp_path, "train")] == [(1, "Good film"), (0, "Bad")]
    with pytest.raises(DataError, match=r"test\.txt:1: unknown label: '2'; allowed: 0 or neg, 1 or pos"):
        read(tmp_path, "test")


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "aclImdb_v1.tar.gz")
    content = archive.read_bytes()
    for size in (0, 5, len(content) // 2, len(content) - 9):
        archive.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"aclImdb_v1\.tar\.gz: damaged or truncated archive"):
            read(archive, "test")
    archive.write_bytes(b"this is no archive" * 100)
    with pytest.raises(DataError, match="damaged or truncated archive"):
        read(archive, "train")


def test_members_that_are_no_reviews_are_ignored_and_bad_ones_told(tmp_path: Path) -> None:
    archive = make_archive(
        tmp_path / "a.tar.gz", {"train/pos/notes.md": b"x", "../../evil.txt": b"x", "imdb.vocab": b"the"}
    )
    assert len(read(archive, "train")) == 3
    bad = make_archive(tmp_path / "b.tar.gz", {"train/pos/5_7.txt": b"caf\xe9", "train/neg/6_1.txt": b"  "})
    with pytest.raises(DataError) as caught:
        read(bad, "train")
    assert caught.value.message.split("\n") == [
        "aclImdb/train/neg/6_1.txt: text is empty",
        "aclImdb/train/pos/5_7.txt: byte 0xe9 at position 3 is not utf-8",
    ]


def test_a_wrong_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "test" / "neg" / "0_1.txt").unlink()
    (folder / "test" / "neg").rmdir()
    with pytest.raises(DataError, match=r"lacks test/neg/; it holds pos/"):
        read(folder, "test")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="other is no IMDb data; it holds nothing"):
        read(tmp_path / "other", "train")
