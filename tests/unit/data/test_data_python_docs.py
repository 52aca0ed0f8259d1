"""The data set made of the standard library's docstrings."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from tests.unit.data.helpers import no_fetch
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row
from trainers.data.readers.python_docs import area_of, clean_docstring


def read(path: Path | None, split: str) -> list[Row]:
    data = DataConfig(dataset="python_docs", path=str(path) if path else None)
    return list(open_dataset(data, no_fetch).read(split, ReadLog()))


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_this_pythons_library_makes_a_real_data_set() -> None:
    dataset = open_dataset(DataConfig(dataset="python_docs"), no_fetch)
    train, test = (list(dataset.read(split, ReadLog())) for split in ("train", "test"))
    assert len(train) + len(test) >= 3000
    assert 0.11 < len(test) / (len(train) + len(test)) < 0.19
    texts = [words(row.text) for row in train + test]
    assert len(set(texts)) == len(texts)
    assert min(len(text.split()) for text in texts) >= 6
    counts = Counter(row.label for row in train)
    assert len(counts) == 8
    assert max(counts.values()) < 3 * min(counts.values())
    assert max(counts.values()) / len(train) < 0.2
    assert not any(">>>" in row.text for row in train)


def make_library(tmp_path: Path) -> Path:
    files = {
        "json/__init__.py": '"""Encode and decode basic Python data as text."""\n'
        'class A:\n    """Reads one value from a text stream."""\n',
        "socket.py": 'def f():\n    """Open a connection to a remote address."""\n'
        '    def g():\n        """Reads one value, from a text stream"""\n',
        "email/test/test_x.py": '"""This text of a test suite never counts."""\n',
        "unknownmodule.py": '"""A module of no known area at all."""\n',
        "queue.py": '"""Too short to count."""\nasync def f():\n    """f(x) -> y\n\n    Wait until an item can be taken out."""\n',
        "threading.py": "this is no Python {\n",
        "heapq.py": '"""Broken surrogate \\ud800 in the middle of it all."""\ndef f():\n    "Wait until an item can be taken OUT!"\n',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_documents_of_a_small_library(tmp_path: Path) -> None:
    library = make_library(tmp_path)
    assert read(library, "train") == read(library, "train")
    rows = read(library, "train") + read(library, "test")
    # the sentence that stands in json and socket, and the one in queue and heapq, belong to two areas: dropped
    assert {(row.file, row.text) for row in rows} == {
        ("json/__init__.py", "Encode and decode basic Python data as text."),
        ("socket.py", "Open a connection to a remote address."),
    }
    assert {row.line for row in rows} == {1}


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("f(a, b) -> int\n\nReturn the sum.", "Return the sum."),
        ("Adds up.\n\n>>> f(1)\n1\n>>> f(2)\n2\n\nThen more\ntext.", "Adds up.\n\nThen more text."),
        ("S.find(sub[, start]) -> int", ""),
        ("Call f(x) when ready.", "Call f(x) when ready."),
    ],
)
def test_signatures_and_examples_are_removed(raw: str, clean: str) -> None:
    assert clean_docstring(raw) == clean


def test_areas() -> None:
    assert area_of(Path("json/decoder.py")) == area_of(Path("csv.py"))
    assert area_of(Path("tkinter/__init__.py")) is None
    assert area_of(Path("unittest/test/test_case.py")) is None
    assert area_of(Path("site-packages/json/__init__.py")) is None


def test_a_folder_without_a_library(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sources of Python's standard library"):
        read(tmp_path, "train")
