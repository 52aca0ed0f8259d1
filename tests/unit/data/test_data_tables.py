"""Generic TSV, CSV and JSON Lines with named columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import Columns, DataConfig, Files
from tests.unit.data.helpers import no_fetch
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row


def read(data: DataConfig, split: str = "train") -> list[Row]:
    log = ReadLog()
    rows = list(open_dataset(data, no_fetch).read(split, log))
    log.finish()
    return rows


def problems(data: DataConfig) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(data)
    return caught.value.message.split("\n")


def test_csv_with_named_columns_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        'id,question,answer,kind\n1,"a, b","say ""hi""",x\n\n2,"two\nlines",d,y\n', "utf-8"
    )
    columns = Columns(text="question", text_pair="answer", label="kind")
    rows = read(DataConfig(dataset="csv", path=str(tmp_path), columns=columns))
    assert rows == [
        Row("a, b", 'say "hi"', "x", "train.csv", 2),
        Row("two\nlines", "d", "y", "train.csv", 4),
    ]


def test_tsv_without_header_by_number_and_quotes_are_text(tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text('0\t"quoted\n1\tplain\n', "utf-8")
    columns = Columns(text=1, label=0)
    rows = read(DataConfig(dataset="tsv", path=str(tmp_path / "data.tsv"), columns=columns, header=False))
    assert [(row.text, row.label) for row in rows] == [('"quoted', "0"), ("plain", "1")]


def test_jsonl(tmp_path: Path) -> None:
    records = [{"text": "été", "label": 1}, {"text": "b", "label": "x", "more": [1]}, {"text": "c", "label": True}]
    text = "\n".join(json.dumps(record) for record in records) + "\n\n"
    (tmp_path / "train.jsonl").write_text(text, "utf-8")
    rows = read(DataConfig(dataset="jsonl", path=str(tmp_path)))
    assert [(row.text, row.label, row.line) for row in rows] == [("été", "1", 1), ("b", "x", 2), ("c", "True", 3)]


def test_files_by_name_or_by_convention(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.csv", "t.csv", "raw.csv"):
        (tmp_path / name).write_text("text,label\na,b\n")
    assert set(open_dataset(DataConfig(dataset="csv", path=str(tmp_path)), no_fetch).splits) == {"train", "validation"}
    named = DataConfig(dataset="csv", path=str(tmp_path), files=Files(train="train.csv", test="t.csv", unsup="raw.csv"))
    assert set(open_dataset(named, no_fetch).splits) == {"train", "test", "unsup"}
    assert read(named, "unsup")[0].label is None  # texts for pre-training need no label


def test_wrong_columns_are_told_with_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,body\n1,a\n")
    data = DataConfig(dataset="csv", path=str(tmp_path))
    with pytest.raises(DataError, match=r"train\.csv:1: data\.columns\.text: no column 'text'; there is: id, body"):
        read(data)
    numbered = data.model_copy(update={"columns": Columns(text=7, label=0), "header": False})
    with pytest.raises(DataError, match=r"no column 7; there is: columns 0 to 1"):
        read(numbered)


def test_bad_table_rows(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_bytes(b"text\tlabel\nfine\ta\nthree\tcolumns\there\n\tb\nno label\t \n\xe9\ta\n")
    assert problems(DataConfig(dataset="tsv", path=str(tmp_path))) == [
        "train.tsv:3: 3 columns: 'three\\tcolumns\\there'; allowed: 2, as in the first row",
        "train.tsv:4: column 'text' is empty",
        "train.tsv:5: column 'label' is empty; allowed: a label",
        "train.tsv:6: byte 0xe9 at position 0 is not utf-8",
    ]
    latin = DataConfig(dataset="tsv", path=str(tmp_path), encoding="latin-1")
    assert len(problems(latin)) == 3


def test_bad_json_rows(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "label": 1}',
        "{",
        "[1]",
        '{"text": 5, "label": 1}',
        '{"text": "x"}',
        '{"text": "\\ud800", "label": 1}',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    found = problems(DataConfig(dataset="jsonl", path=str(tmp_path)))
    assert [line.split(": ")[0] for line in found] == [f"train.jsonl:{number}" for number in (2, 3, 4, 5, 6)]
    assert "not JSON" in found[0]
    assert "not a JSON object" in found[1]
    assert "no usable 'text'" in found[2]
    assert "no usable 'label'" in found[3]
    assert "surrogate" in found[4]


def test_a_folder_without_a_training_file(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match=r"has no training file train\.csv; it holds notes\.md"):
        read(DataConfig(dataset="csv", path=str(tmp_path)))


def test_a_label_that_would_break_the_table_of_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('text,label\nx,a\ny,"a\tb"\nz,"a\nb"\n')
    data = DataConfig(dataset="csv", path=str(tmp_path))
    assert problems(data) == [
        "train.csv:3: a label cannot hold tabs or line ends: 'a\\tb'",
        "train.csv:4: a label cannot hold tabs or line ends: 'a\\nb'",
    ]
