"""TREC, AG's News and plain text corpora: the real files, made-up ones, and what a user reads when one is wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import DataConfig, Files
from tests.unit.data.helpers import no_fetch, shared
from trainers.data.download import REMOTES
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row


def read(data: DataConfig, split: str) -> list[Row]:
    log = ReadLog()
    rows = list(open_dataset(data, no_fetch).read(split, log))
    log.finish()
    return rows


def trec_folder(tmp_path: Path, train: bytes, test: bytes = b"NUM:dist How far is it ?\n") -> DataConfig:
    (tmp_path / "train_5500.label").write_bytes(train)
    (tmp_path / "TREC_10.label").write_bytes(test)
    return DataConfig(dataset="trec", path=str(tmp_path))


def test_trec_whole() -> None:
    folder = shared("trec")
    coarse = DataConfig(dataset="trec", path=str(folder))
    train, test = read(coarse, "train"), read(coarse, "test")
    names = open_dataset(coarse, no_fetch).label_names
    assert names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    # counted with cut, sort and uniq on the files
    assert [Counter(row.label for row in train)[label] for label in range(6)] == [86, 1162, 1250, 1223, 835, 896]
    assert [Counter(row.label for row in test)[label] for label in range(6)] == [9, 138, 94, 65, 81, 113]
    assert train[65].text == "Which city has the oldest relationship as a sister\xf0city with Los Angeles ?"
    assert (train[65].file, train[65].line) == ("train_5500.label", 66)
    assert len({row.text for row in train} & {row.text for row in test}) == 10
    fine = coarse.model_copy(update={"labels": "fine"})
    fine_names = open_dataset(fine, no_fetch).label_names
    assert fine_names is not None
    assert len(fine_names) == 50
    assert Counter(fine_names[int(row.label or 0)].split(":")[0] for row in read(fine, "test"))["NUM"] == 113


def test_the_pinned_checksums_are_those_of_the_real_files() -> None:
    for name, remote in REMOTES["trec"].items():
        content = shared(f"trec/{name}").read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (remote.num_bytes, remote.sha256)


def test_trec_tab_form(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("HUM\tWho ?\n5\tHow many ?\nLOC:city\tWo, Köln ?\n", encoding="utf-8")
    (tmp_path / "test.tsv").write_text("0\tWhat does IRS mean ?\r\n", encoding="utf-8")
    data = DataConfig(dataset="trec", path=str(tmp_path / "train.tsv"))
    assert [(row.label, row.text) for row in read(data, "train")] == [
        (3, "Who ?"),
        (5, "How many ?"),
        (4, "Wo, Köln ?"),
    ]
    assert [(row.label, row.text) for row in read(data, "test")] == [(0, "What does IRS mean ?")]


def test_all_bad_rows_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    data = trec_folder(tmp_path, b"NUM:dist How far ?\nXXX:y What ?\nHUM:ind \nno label here\nHUM:ind a\0b\n")
    with pytest.raises(DataError) as caught:
        read(data, "train")
    lines = caught.value.message.split("\n")
    assert lines[0].startswith(
        "train_5500.label:2: no known label at the start: 'XXX:y What ?'; allowed: COARSE:fine question"
    )
    assert lines[1] == "train_5500.label:3: text is empty"
    assert lines[2].startswith("train_5500.label:4: no known label at the start: 'no label here'")
    assert lines[3] == "train_5500.label:5: text holds a NUL character at position 1"
    assert len(lines) == 4


def test_reports_stop_after_20_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(trec_folder(tmp_path, b"bad\n" * 1000), "train")
    assert caught.value.message.count("\n") == 20
    assert caught.value.message.endswith("(stopped after 20 bad rows)")


def test_a_missing_path_and_a_wrong_folder_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x")
    with pytest.raises(DataError, match=r"nowhere does not exist; .* holds train\.csv"):
        read(DataConfig(dataset="trec", path=str(tmp_path / "nowhere")), "train")
    with pytest.raises(DataError, match=r"lacks train_5500\.label or train\.tsv .*it holds train\.csv"):
        read(DataConfig(dataset="trec", path=str(tmp_path)), "train")


def test_ag_news_first_thousand_rows(tmp_path: Path) -> None:
    sample = shared("ag_news/test.first1000.csv").read_bytes()
    (tmp_path / "train.csv").write_bytes(sample)
    (tmp_path / "test.csv").write_bytes(sample)
    rows = read(DataConfig(dataset="ag_news", path=str(tmp_path)), "test")
    # cut -c1-3 | sort | uniq -c
    assert [Counter(row.label for row in rows)[label] for label in range(4)] == [268, 274, 205, 253]
    assert rows[0].text == (
        "Fears for T N pension after talks - Unions representing workers at Turner   Newall say they are 'disappointed' "
        "after talks with stricken parent firm Federal Mogul."
    )
    assert rows[0].label == 2
    assert "A second team of rocketeers" in rows[1].text
    assert not any("\\" in row.text for row in rows)
    assert any("social network" in row.text for row in rows)  # "social\\network" in the file


def test_ag_news_quotes_and_bad_rows(tmp_path: Path) -> None:
    good = b'"1","He said ""no""","two\nlines, one row"\r\n"4","b","c"\n'
    (tmp_path / "test.csv").write_bytes(good)
    (tmp_path / "train.csv").write_bytes(
        good + b'"5","a","b"\n"1","a"\n"2","",""\n"3","\xff","b"\n"1","x" y,"z"\n"1","open'
    )
    data = DataConfig(dataset="ag_news", path=str(tmp_path))
    rows = read(data, "test")
    assert [(row.label, row.text, row.line) for row in rows] == [
        (0, 'He said "no" - two\nlines, one row', 1),
        (3, "b - c", 3),
    ]
    with pytest.raises(DataError) as caught:
        read(data, "train")
    lines = caught.value.message.split("\n")
    assert lines[0] == "train.csv:4: label out of range: '5'; allowed: 1 World, 2 Sports, 3 Business, 4 Sci/Tech"
    assert lines[1] == "train.csv:5: 2 columns: '1,a'; allowed: 3: class, title, description"
    assert lines[2] == "train.csv:6: title and description is empty"
    assert lines[3] == "train.csv:7: byte 0xff at position 5 is not utf-8"
    assert lines[4].startswith("train.csv:8: broken quoting")
    assert lines[5].startswith("train.csv:9: broken quoting")


def test_the_papers_corpus_format() -> None:
    path = shared("ag_news/agnews_corpus_test.txt")
    dataset = open_dataset(DataConfig(dataset="text", path=str(path)), no_fetch)
    documents = list(dataset.documents("train", ReadLog()))
    assert len(documents) == 7600
    assert documents[0][0] == "Fears for T N pension after talks"
    assert sum(map(len, documents)) == sum(bool(line.strip()) for line in path.read_text("utf-8").split("\n"))


def test_corpus_files_of_any_line_end_and_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffOne.\r\nTwo.\r\n\r\n \r\nThree é.".encode())
    (tmp_path / "b.txt").write_bytes(b"Four.\n")
    dataset = open_dataset(DataConfig(dataset="text", path=str(tmp_path)), no_fetch)
    assert list(dataset.documents("train", ReadLog())) == [["One.", "Two."], ["Three é."], ["Four."]]
    (tmp_path / "wide.txt").write_bytes("Fünf.\nSechs.\n".encode("utf-16"))
    named = DataConfig(dataset="text", path=str(tmp_path), files=Files(unsup="wide.txt"), encoding="utf-16")
    assert list(open_dataset(named, no_fetch).documents("unsup", ReadLog())) == [["Fünf.", "Sechs."]]
    with pytest.raises(DataError, match=r"data\.files\.train: .*c\.txt is no file; .* holds a\.txt, b\.txt, wide\.txt"):
        open_dataset(named.model_copy(update={"files": Files(train="c.txt")}), no_fetch)
