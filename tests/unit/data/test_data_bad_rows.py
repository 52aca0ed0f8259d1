"""Bad rows of every kind in every format: named with file and line, or skipped, counted and capped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import DataError
from configs.schema import Columns, DataConfig
from tests.unit.data.helpers import make_vocabulary, no_fetch
from trainers.data.dataset_cache import DatasetCache
from trainers.data.readers import open_dataset
from trainers.data.readers.base import ReadLog, Row
from trainers.data.readers.lines import MAX_LINE_BYTES
from trainers.data.split import pool_rows
from trainers.data.store import open_corpus, open_texts
from trainers.data.tokenize import Tokenizer

LONG = b"x" * MAX_LINE_BYTES
FORMATS: dict[str, tuple[str, Callable[[bytes, bytes], bytes], dict[str, object]]] = {
    # file, line of (label, text), config
    "trec": ("train_5500.label", lambda label, text: label + b" " + text, {"dataset": "trec"}),
    "trec-tab": ("train.tsv", lambda label, text: label + b"\t" + text, {"dataset": "trec"}),
    "imdb-tab": ("train.tsv", lambda label, text: label + b"\t" + text, {"dataset": "imdb"}),
    "yelp_polarity": (
        "train.csv",
        lambda label, text: b'"' + label + b'","' + text + b'"',
        {"dataset": "yelp_polarity"},
    ),
    "tsv": ("train.tsv", lambda label, text: label + b"\t" + text, {"dataset": "tsv"}),
    "csv": ("train.csv", lambda label, text: label + b',"' + text + b'"', {"dataset": "csv"}),
    "jsonl": (
        "train.jsonl",
        lambda label, text: b'{"label": "' + label + b'", "text": "' + text.replace(b"\0", b"\\u0000") + b'"}',
        {"dataset": "jsonl"},
    ),
}
LABELS = {"trec": (b"NUM:date", b"LOC:city"), "imdb": (b"0", b"1")}
TEST_FILES = {"trec": "TREC_10.label", "trec-tab": "test.tsv", "imdb-tab": "test.tsv", "yelp_polarity": "test.csv"}


class Table:
    """A training file with good rows and, in the middle, bad ones."""

    def __init__(self, folder: Path, form: str, end: bytes = b"\n") -> None:
        self.file, self.line, keys = FORMATS[form]
        self.labels = LABELS.get(form.partition("-")[0], (b"1", b"2"))
        generic = {"columns": {"text": 1, "label": 0}, "header": False} if form in ("tsv", "csv") else {}
        self.folder, self.end = folder, end
        self.config = DataConfig.model_validate({**keys, **generic, "path": str(folder)})
        if form in TEST_FILES:
            (folder / TEST_FILES[form]).write_bytes(self.line(self.labels[0], b"a test text"))

    def row(self, text: bytes, label: int = 0) -> bytes:
        return self.line(self.labels[label], text)

    def write(self, *bad: bytes, begin: bytes = b"") -> None:
        good = [self.row(b"good %d" % number, number % 2) for number in range(6)]
        (self.folder / self.file).write_bytes(begin + self.end.join([*good[:3], *bad, *good[3:]]) + self.end)

    def read(self, skip: bool) -> tuple[list[Row], ReadLog]:
        log = ReadLog(skip=skip)
        return list(log.counted(open_dataset(self.config, no_fetch).read("train", log))), log


def good(rows: list[Row]) -> list[str]:
    return [row.text for row in rows]


GOOD = [f"good {number}" for number in range(6)]
FAULTS: dict[str, tuple[Callable[[Table], bytes], str]] = {
    "encoding": (lambda table: table.row(b"caf\xe9"), "is not utf-8"),
    "NUL": (lambda table: table.row(b"a\0b"), "NUL character at position 1"),
    "empty": (lambda table: table.row(b""), "is empty"),
    "spaces": (lambda table: table.row(b" "), "is empty"),
    "long line": (lambda table: table.row(LONG), f"a line of more than {MAX_LINE_BYTES} bytes"),
    "no columns": (lambda table: b"nothing", ""),
    "lone carriage return": (lambda table: table.row(b"a") + b"\r" + table.row(b"b"), ""),
    "label": (lambda table: table.line(b"9", b"text"), "label"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_named_or_skipped(form: str, fault: str, tmp_path: Path) -> None:
    table = Table(tmp_path, form)
    make, message = FAULTS[fault]
    if fault == "encoding" and form == "trec":
        pytest.skip("TREC is latin-1: every byte is a character")
    if fault == "label" and form in ("tsv", "csv", "jsonl"):
        pytest.skip("any label is allowed in a training file of one's own")
    table.write(make(table))
    rows, log = table.read(skip=False)
    with pytest.raises(DataError) as caught:
        log.finish()
    lines = caught.value.message.split("\n")
    assert lines[0].startswith(f"{table.file}:4: ")
    assert message in lines[0]
    assert len(lines) == 1
    assert "data.on_bad_row=skip" in caught.value.hint
    rows, log = table.read(skip=True)
    assert good(rows) == GOOD
    assert [row.line for row in rows] == [1, 2, 3, 5, 6, 7]
    assert (log.num_bad, log.examples) == (1, lines)
    log.finish(0.15)  # 1 of 7
    with pytest.raises(DataError, match=r"^1 of 7 rows are bad \(14\.29%\); data\.max_bad_rows allows 14\.00%"):
        log.finish(0.14)


@pytest.mark.parametrize("form", FORMATS)
def test_byte_order_marks_and_mixed_line_ends_are_no_faults(form: str, tmp_path: Path) -> None:
    table = Table(tmp_path, form, b"\r\n")
    table.write(table.row(b"one") + b"\n" + table.row(b"two"), begin=b"" if form == "trec" else b"\xef\xbb\xbf")
    rows, log = table.read(skip=False)
    log.finish()
    assert good(rows) == [*GOOD[:3], "one", "two", *GOOD[3:]]


def test_a_record_with_an_unreadable_line_is_left_out_whole(tmp_path: Path) -> None:
    table = Table(tmp_path, "yelp_polarity")
    table.write(b'"1","begin\nmid \xff dle\nend"', b'"1","long\n' + LONG + b'a"', b'"2","' + LONG + b'\nend"')
    rows, log = table.read(skip=True)
    assert good(rows) == GOOD
    assert [example.partition(": ")[0] for example in log.examples] == ["train.csv:5", "train.csv:8", "train.csv:9"]
    assert log.num_bad == 3


def test_a_quote_that_is_never_closed_swallows_no_other_row(tmp_path: Path) -> None:
    table = Table(tmp_path, "csv")
    table.write(b'1,"open', b'2,"also open', b"1,plain")
    rows, log = table.read(skip=True)
    assert [row.line for row in rows] == [1, 2, 3, 6, 7, 8, 9]
    assert [example.partition(" (")[0] for example in log.examples] == [
        "train.csv:4: broken quoting",
        "train.csv:5: broken quoting",
    ]


def test_a_row_with_several_faults_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("q,a,label\n,,\nx,y,z\n")
    data = DataConfig(dataset="csv", path=str(tmp_path), columns=Columns(text="q", text_pair="a"))
    log = ReadLog(skip=True)
    assert len(list(open_dataset(data, no_fetch).read("train", log))) == 1
    assert (log.num_bad, len(log.examples)) == (1, 3)


def test_utf_16_is_checked_line_by_line(tmp_path: Path) -> None:
    text = "label\ttext\nx\tone\ny\ttwo\n"
    data = DataConfig(dataset="tsv", path=str(tmp_path), encoding="utf-16")
    (tmp_path / "train.tsv").write_bytes(text.replace("one", "o\udc00e").encode("utf-16", "surrogatepass"))
    log = ReadLog(skip=True)
    assert [row.text for row in open_dataset(data, no_fetch).read("train", log)] == ["two"]
    assert log.examples == ["train.tsv:2: column 'text' holds half of a surrogate pair, which is no character"]
    (tmp_path / "train.tsv").write_bytes(text.encode("utf-16")[:-1])  # cut within a character
    with pytest.raises(DataError, match=r"^train\.tsv:3: byte 46 of the file is not utf-16"):
        list(open_dataset(data, no_fetch).read("train", ReadLog(skip=True)))


class Bench:
    """A cache, and a TSV data set with bad rows in both splits."""

    def __init__(self, folder: Path, bad: int, rows: int = 200) -> None:
        self.folder = folder
        self.said: list[str] = []
        for split in ("train", "test"):
            lines = ["label\ttext", *(f"{'ab'[number % 2]}\tgood w{number}" for number in range(rows))]
            for number in range(bad):
                lines.insert(3 + 2 * number, "broken")
            (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")

    def config(self, **keys: object) -> DataConfig:
        return DataConfig.model_validate({"dataset": "tsv", "path": str(self.folder), **keys})

    def cache(self) -> DatasetCache:
        tokenizer = Tokenizer(make_vocabulary(self.folder / "vocab"), lower_case=True)
        return DatasetCache(self.folder / "tokens", tokenizer, no_fetch, lambda *_: None, self.said.append)


def test_skipped_rows_are_counted_in_the_entry_and_the_policy_is_in_its_key(tmp_path: Path) -> None:
    bench = Bench(tmp_path, bad=2)
    with pytest.raises(DataError, match=r"^train\.tsv:4: 1 columns"):
        bench.cache().texts(bench.config(), "train")
    config = bench.config(on_bad_row="skip")
    path = bench.cache().texts(config, "train")
    texts = open_texts(path)
    assert (len(texts), texts.num_skipped) == (200, 2)  # 2 of 202 are below the default of 1 %
    assert [texts.sources(row) for row in (1, 2, 3)] == ["train.tsv:3", "train.tsv:5", "train.tsv:7"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["skipped"] == 2
    assert [example[:11] for example in manifest["skipped_examples"]] == ["train.tsv:4", "train.tsv:6"]
    assert bench.cache().texts(config, "train") == path
    other = bench.config(on_bad_row="skip", max_bad_rows=0.5)
    assert bench.cache().texts(other, "train") != path
    corpus = open_corpus(bench.cache().corpus(config, ("train",), seed=1))
    assert (corpus.num_documents, corpus.num_skipped) == (200, 2)


def test_a_data_set_with_too_many_bad_rows_is_refused_and_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, bad=8)
    for build in (
        lambda config: bench.cache().texts(config, "train"),
        lambda config: bench.cache().corpus(config, ("train",), seed=1),
    ):
        with pytest.raises(DataError) as caught:
            build(bench.config(on_bad_row="skip"))
        lines = caught.value.message.split("\n")
        assert lines[0] == "8 of 208 rows are bad (3.85%); data.max_bad_rows allows 1.00%. The first:"
        assert [line.partition(": ")[0] for line in lines[1:]] == [f"train.tsv:{4 + 2 * n}" for n in range(8)]
    assert not [path for path in (tmp_path / "tokens").iterdir() if path.name.startswith(".tmp")]
    config = bench.config(on_bad_row="skip", max_bad_rows=0.05)
    assert open_texts(bench.cache().texts(config, "train")).num_skipped == 8


def test_the_share_is_that_of_each_split(tmp_path: Path) -> None:
    bench = Bench(tmp_path, bad=0)
    (tmp_path / "unsup.tsv").write_text("text\nfine\nalso fine\nnot\tfine\n")
    config = bench.config(on_bad_row="skip", max_bad_rows=0.3)  # 1 of 3, or 1 of 203 if splits were counted together
    with pytest.raises(DataError, match=r"^1 of 3 rows are bad"):
        bench.cache().corpus(config, ("train", "unsup"), seed=1)


def test_labels_that_training_lacks_are_skipped_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, bad=0)
    with (tmp_path / "test.tsv").open("a") as stream:
        stream.write("c\tunknown class\n")
    with pytest.raises(DataError, match=r"test\.tsv:202: label not in the training split: 'c'"):
        bench.cache().texts(bench.config(), "test")
    texts = open_texts(bench.cache().texts(bench.config(on_bad_row="skip"), "test"))
    assert (len(texts), texts.num_skipped) == (200, 1)


def test_subsets_of_a_corpus_with_bad_rows_are_those_of_fine_tuning(tmp_path: Path) -> None:
    bench = Bench(tmp_path, bad=2)
    config = bench.config(on_bad_row="skip", subset={"train": 50})
    texts = open_texts(bench.cache().texts(config, "train"))
    assert texts.labels is not None
    corpus = open_corpus(bench.cache().corpus(config, ("train",), seed=3))
    drawn = pool_rows(texts.labels, config, 3)
    assert corpus.row_fingerprints.tolist() == texts.row_fingerprints[drawn].tolist()


def test_imdb_reviews(tmp_path: Path) -> None:
    reviews = {
        "0_1": b"good",
        "1_1": b"",
        "2_1": b"caf\xe9",
        "3_1": b"a\0b",
        "4_1": LONG + b"x",
        "5_1": b"fine",
        "odd": b"x",
    }
    for place in ("train/neg", "train/pos", "test/neg", "test/pos"):
        (tmp_path / place).mkdir(parents=True)
    for name, content in reviews.items():
        (tmp_path / "train/neg" / f"{name}.txt").write_bytes(content)
    data = DataConfig(dataset="imdb", path=str(tmp_path))
    log = ReadLog(skip=True)
    rows = list(log.counted(open_dataset(data, no_fetch).read("train", log)))
    assert [row.text for row in rows] == ["good", "fine"]
    assert (log.num_bad, log.num_good) == (5, 2)
    told = sorted(example.removeprefix("aclImdb/train/neg/") for example in log.examples)
    assert told == [
        "1_1.txt: text is empty",
        "2_1.txt: byte 0xe9 at position 3 is not utf-8",
        "3_1.txt: text holds a NUL character at position 1",
        f"4_1.txt: more than {MAX_LINE_BYTES} bytes",
        "odd.txt: unexpected file name: 'odd.txt'; allowed: NUMBER_RATING.txt",
    ]


def test_text_corpora(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"One.\nTw\xff.\nThree.\n\n" + LONG + b"\nFo\0ur.\n\nFive.\rSix.\nSeven.\n")
    data = DataConfig(dataset="text", path=str(tmp_path))
    log = ReadLog(skip=True)
    documents = list(open_dataset(data, no_fetch).documents("train", log))
    assert documents == [["One.", "Three."], ["Seven."]]
    assert [example.partition(": ")[0] for example in log.examples] == [f"a.txt:{line}" for line in (2, 5, 6, 8)]
