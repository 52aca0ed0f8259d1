"""The data sets of Zhang et al. 2015 and the paper's Sogou News: archives read in place, folders, strange quoting, empty fields."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from tests.unit.data import samples
from tests.unit.data.helpers import no_fetch, shared
from trainers.data.download import REMOTES
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row

CLASSES = {
    "ag_news": (4, 2),
    "yahoo": (10, 3),
    "dbpedia": (14, 2),
    "yelp_polarity": (2, 1),
    "yelp_full": (5, 1),
    "sogou_pinyin": (5, 2),
}
"""(classes, columns behind the class) as in the readme of the archives."""
FOLDERS = {
    "ag_news": "ag_news_csv",
    "yahoo": "yahoo_answers_csv",
    "dbpedia": "dbpedia_csv",
    "yelp_polarity": "yelp_review_polarity_csv",
    "yelp_full": "yelp_review_full_csv",
    "sogou_pinyin": "sogou_news_csv",
}


def config(name: str, path: Path | None) -> DataConfig:
    return DataConfig.model_validate({"dataset": name, "path": str(path) if path is not None else None})


def read(name: str, path: Path, split: str = "train") -> list[Row]:
    log = ReadLog()
    rows = list(open_dataset(config(name, path), no_fetch).read(split, log))
    log.finish()
    return rows


def bad(name: str, path: Path, split: str = "train") -> list[str]:
    with pytest.raises(DataError) as caught:
        read(name, path, split)
    return caught.value.message.split("\n")


def in_folder(folder: Path, train: str | bytes, test: str | bytes = b"") -> Path:
    for split, content in (("train", train), ("test", test)):
        (folder / f"{split}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_archive_is_read_in_place(name: str, split: str, tmp_path: Path) -> None:
    archive = samples.MAKERS[name](tmp_path)
    rows = read(name, archive, split)
    written = samples.zhang_rows(split, *CLASSES[name])
    assert [row.label for row in rows] == [int(fields[0]) - 1 for fields in written]
    assert [(row.file, row.line) for row in rows][:2] == [
        (f"{FOLDERS[name]}.tgz/{split}.csv", 1),
        (f"{FOLDERS[name]}.tgz/{split}.csv", 2),
    ]
    parts = written[3][1:]
    expected = {
        # in AG's News a backslash is a line end, and the letter behind it is text
        "ag_news": (" - ".join(part.replace("\n", " n") for part in parts), None),
        "yahoo": (" ".join(parts[:2]), parts[-1]),
    }.get(name, (" ".join(parts), None))
    assert (rows[3].text, rows[3].pair) == expected
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]  # nothing was unpacked


@pytest.mark.parametrize("name", CLASSES)
def test_an_archive_a_folder_and_a_folder_with_either_are_the_same(name: str, tmp_path: Path) -> None:
    archive = samples.MAKERS[name](tmp_path)
    whole = [row[:3] for row in read(name, archive)]
    assert [row[:3] for row in read(name, tmp_path)] == whole  # the folder that holds the .tgz
    unpacked = tmp_path / "u" / FOLDERS[name]
    unpacked.mkdir(parents=True)
    for member, content in samples.zhang_files(FOLDERS[name], *CLASSES[name]).items():
        (unpacked / Path(member).name).write_bytes(content)
    for place in (unpacked, unpacked.parent, unpacked / "train.csv"):
        assert [row[:3] for row in read(name, place)] == whole
    assert len({label for _, _, label in whole}) == CLASSES[name][0]


@pytest.mark.parametrize("name", CLASSES)
def test_without_a_path_the_pinned_files_are_asked_for(name: str, tmp_path: Path) -> None:
    asked: list[str] = []
    archive = samples.MAKERS[name](tmp_path)

    def fetch(dataset: str, file: str) -> Path:
        assert dataset == name
        asked.append(file)
        return archive

    open_dataset(config(name, None), fetch)
    assert asked == list(REMOTES[name])
    for remote in REMOTES[name].values():
        assert remote.url.startswith("https://")
        assert len(remote.sha256) == 64


def test_names_of_classes() -> None:
    def names(name: str) -> tuple[str, ...]:
        return open_dataset(config(name, None), lambda *_: Path("x.tgz")).label_names or ()

    assert {name: len(names(name)) for name in CLASSES} == {name: count for name, (count, _) in CLASSES.items()}
    assert (names("yahoo")[0], names("yahoo")[9]) == ("Society & Culture", "Politics & Government")
    assert (names("dbpedia")[2], names("dbpedia")[8], names("dbpedia")[13]) == ("Artist", "Village", "WrittenWork")
    assert names("yelp_polarity") == ("negative", "positive")


def test_quotes_escapes_and_records_of_several_lines(tmp_path: Path) -> None:
    place = in_folder(
        tmp_path,
        '"1","He said ""no"", then \\""yes\\""."\n'
        '2,"unquoted class, \\n\\ntwo\nreal line"\r\n'
        '"1","C:\\temp and ""\\\\"""\n'
        '"2","last, without an end"',
    )
    assert [(row.label, row.text, row.line) for row in read("yelp_polarity", place)] == [
        (0, 'He said "no", then "yes".', 1),
        (1, "unquoted class, \n\ntwo\nreal line", 2),
        (0, 'C:\\temp and "\\\\"', 4),
        (1, "last, without an end", 5),
    ]


def test_yahoo_rows_need_text_on_one_side(tmp_path: Path) -> None:
    rows = (
        '"1","Title ?","","An answer"\n"2","Title","More\\nof it",""\n"10","","","Only an answer"\n"3"," ","","\\n"\n'
    )
    place = in_folder(tmp_path, rows)
    assert bad("yahoo", place) == ["train.csv:4: title, question and best answer is empty"]
    in_folder(tmp_path, rows.partition('"3"')[0])
    assert [(row.text, row.pair, row.label) for row in read("yahoo", place)] == [
        ("Title ?", "An answer", 0),
        ("Title More\nof it", "", 1),
        ("", "Only an answer", 9),
    ]


def test_bad_rows_are_told_with_their_lines(tmp_path: Path) -> None:
    place = in_folder(
        tmp_path,
        b'"15","a","b"\n"0","a","b"\n"x","a","b"\n"1","a"\n"2","",""\n"3","t","b\xff\ntail"\n"4","a\0","b"\n"5","a","b" c\n"6","ok","ok"\n',
    )
    assert bad("dbpedia", place) == [
        "train.csv:1: label out of range: '15'; allowed: 1 to 14",
        "train.csv:2: label out of range: '0'; allowed: 1 to 14",
        "train.csv:3: label out of range: 'x'; allowed: 1 to 14",
        "train.csv:4: 2 columns: '1,a'; allowed: 3: class, title, abstract",
        "train.csv:5: title and abstract is empty",
        "train.csv:6: byte 0xff at position 10 is not utf-8",
        "train.csv:8: title and abstract holds a NUL character at position 1",
        "train.csv:9: broken quoting (',' expected after '\"')",
    ]


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    archive = samples.MAKERS["yelp_full"](tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert "damaged or truncated archive" in bad("yelp_full", archive)[0]
    unpacked = gzip.decompress(content)
    archive.write_bytes(gzip.compress(unpacked)[:-8] + b"\0" * 8)  # all of the content, and a wrong checksum
    for split in ("train", "test"):
        assert "damaged or truncated archive" in bad("yelp_full", archive, split)[0]
    archive.write_bytes(b"no archive")
    assert "damaged or truncated archive" in bad("yelp_full", archive)[0]


def test_an_archive_without_the_file_says_what_it_holds(tmp_path: Path) -> None:
    archive = samples.write_archive(tmp_path / "x.tgz", {"a/b/train.csv": b"", "a/valid.csv": b""})
    assert "no train.csv in it; it holds a, a/b/._train.csv, a/b/train.csv" in bad("dbpedia", archive)[0]
    (tmp_path / "y").mkdir()
    message = bad("dbpedia", tmp_path / "y")[0]
    assert message == f"data.path: {tmp_path}/y lacks train.csv, test.csv; it holds nothing"


def test_a_member_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "secret.csv").write_text('"1","secret"\n')
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        for name in ("yelp/train.csv", "yelp/test.csv"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.csv")
            tar.addfile(info)
    assert "no train.csv in it" in bad("yelp_polarity", tmp_path / "x.tgz")[0]


def test_sogou_from_csv_and_tab_files(tmp_path: Path) -> None:
    place = samples.sogou(tmp_path)
    rows = read("sogou", place)
    assert Counter(row.label for row in rows) == dict.fromkeys("012345", 10)
    title, _, content = rows[0].text.partition("\n\n")
    assert len(title) == 9
    assert content[9] == "。"
    documents = list(open_dataset(config("sogou", place), no_fetch).documents("train", ReadLog()))
    assert [part[-1] for part in documents[0][1:]] == ["。", "？", "！"]
    assert documents[0][0] == title  # a sentence by itself
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").unlink()
        (tmp_path / f"{split}.tsv").write_text("sports\t球赛。\nhouse\t房子！\n", "utf-8")
    assert [(row.label, row.text) for row in read("sogou", tmp_path, "test")] == [
        ("sports", "球赛。"),
        ("house", "房子！"),
    ]


@pytest.mark.parametrize(
    ("labels", "wrong"), [("123456", ""), ("012345", ""), ("1234567", "7"), ("60", "0"), ("0156", "6"), ("1x", "x")]
)
def test_sogou_labels_are_six_counted_from_0_or_1(labels: str, wrong: str, tmp_path: Path) -> None:
    place = in_folder(tmp_path, "".join(f"{label},a,b\n" for label in labels))
    if not wrong:
        assert [row.label for row in read("sogou", place)] == list(labels)
        return
    line = labels.index(wrong) + 1
    names = "sports, house, business, entertainment, women, technology"
    assert bad("sogou", place) == [
        f"train.csv:{line}: label out of range: '{wrong}'; allowed: 0 to 5, 1 to 6, or {names}"
    ]


def test_ag_news_sample_in_an_archive(tmp_path: Path) -> None:
    sample = shared("ag_news/test.first1000.csv").read_bytes()
    files = {"ag_news_csv/test.csv": sample, "ag_news_csv/train.csv": sample[: sample.index(b"\n") + 1]}
    archive = samples.write_archive(tmp_path / "ag_news_csv.tgz", files)
    rows = read("ag_news", archive, "test")
    assert [Counter(row.label for row in rows)[label] for label in range(4)] == [268, 274, 205, 253]
    assert len(read("ag_news", archive)) == 1
