"""The token cache: never stale, whole or not there, one entry for two builders, loud when damaged or out of space."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import CannotWriteError, DataError
from configs.schema import Columns, DataConfig, Subset
from tests.unit.data.helpers import make_vocabulary, no_fetch
from trainers.data.cache import ensure_entry, find_fault
from trainers.data.dataset_cache import DatasetCache
from trainers.data.npy import NpyWriter, write_npy
from trainers.data.split import subset_rows
from trainers.data.store import open_corpus, open_texts
from trainers.data.tokenize import Tokenizer

ROOT = Path(__file__).resolve().parents[3]


class Bench:
    """A CSV data set and a cache for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.built: list[str] = []
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / "train.csv").write_text("text,label\nabc def,10\nSecond one.,9\nab. Yes y,10\n")
        (folder / "data" / "test.csv").write_text("text,label\nbc,9\n")
        self.config = DataConfig(dataset="csv", path=str(folder / "data"))

    def cache(self, *, lower_case: bool = True, words: tuple[str, ...] = ()) -> DatasetCache:
        tokenizer = Tokenizer(make_vocabulary(self.folder / "vocab", words), lower_case)

        def progress(what: str, label: str, done: int, total: int | None, unit: str) -> None:
            if what == "tokenize":
                self.built.append(label)

        return DatasetCache(self.folder / "tokens", tokenizer, no_fetch, progress, self.said.append)

    def train(self, **options: object) -> Path:
        return self.cache(**options).texts(self.config, "train")  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_goes_in_comes_out(bench: Bench) -> None:
    path = bench.train()
    texts = open_texts(path)
    vocabulary = make_vocabulary(bench.folder / "vocab")
    names = {number: token for token, number in vocabulary.ids.items()}
    assert len(texts) == 3
    assert [names[number] for number in texts.tokens(0).tolist()] == ["a", "##b", "##c", "d", "##e", "##f"]
    assert texts.tokens(0).dtype == np.int32
    assert texts.lengths.tolist() == [6, 10, 7]
    assert texts.label_names == ("9", "10")  # numbers in numeric order
    assert texts.labels is not None
    assert texts.labels.tolist() == [1, 0, 1]
    assert texts.labels.dtype == np.int32
    assert [texts.sources(row) for row in range(3)] == ["train.csv:2", "train.csv:3", "train.csv:4"]
    assert (texts.has_pairs, texts.pair_tokens(0), texts.pair_lengths) == (False, None, None)
    assert np.load(path / "ids.npy", allow_pickle=False).dtype == np.uint16
    assert stat.S_IMODE((path / "ids.npy").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_pairs(bench: Bench) -> None:
    (bench.folder / "data" / "train.csv").write_text("q,a,label\nab,c,x\nd,efg,y\n")
    bench.config = bench.config.model_copy(update={"columns": Columns(text="q", text_pair="a")})
    texts = open_texts(bench.train())
    assert texts.has_pairs
    assert texts.pair_lengths is not None
    assert (texts.lengths.tolist(), texts.pair_lengths.tolist()) == ([2, 1], [1, 3])
    pair = texts.pair_tokens(1)
    assert pair is not None
    assert len(pair) == 3


def test_the_same_input_is_built_once(bench: Bench) -> None:
    path = bench.train()
    built = len(bench.built)
    assert bench.train() == path
    assert len(bench.built) == built
    moved = bench.folder / "moved"
    (bench.folder / "data").rename(moved)
    bench.config = bench.config.model_copy(update={"path": str(moved)})
    assert bench.train() == path  # content decides, not the place


def test_any_change_of_data_vocabulary_or_options_gives_another_entry(bench: Bench) -> None:
    original = bench.train()
    data = bench.folder / "data" / "train.csv"
    times = data.stat().st_mtime_ns
    data.write_bytes(data.read_bytes().replace(b"abc", b"abd"))
    os.utime(data, ns=(times, times))  # not even the time stamp tells
    flipped = bench.train()
    assert flipped != original
    assert open_texts(flipped).tokens(0).tolist() != open_texts(original).tokens(0).tolist()
    entries = {original, flipped, bench.train(lower_case=False), bench.train(words=("abd",))}
    bench.config = bench.config.model_copy(update={"columns": Columns(text="label", label="text")})
    assert len({*entries, bench.train()}) == 5


def test_the_test_split_uses_the_label_numbers_of_the_training_split(bench: Bench) -> None:
    texts = open_texts(bench.cache().texts(bench.config, "test"))
    assert texts.label_names == ("9", "10")
    assert texts.labels is not None
    assert texts.labels.tolist() == [0]
    before = texts.fingerprint
    (bench.folder / "data" / "train.csv").write_text("text,label\na,8\nb,9\n")
    renumbered = open_texts(bench.cache().texts(bench.config, "test"))
    assert renumbered.fingerprint != before
    assert renumbered.labels is not None
    assert renumbered.labels.tolist() == [1]
    (bench.folder / "data" / "test.csv").write_text("text,label\na,8\nb,7\n")
    with pytest.raises(DataError, match=r"test\.csv:3: label not in the training split: '7'; allowed: 8, 9"):
        bench.cache().texts(bench.config, "test")
    with pytest.raises(DataError, match="no split 'validation'; there is: train, test"):
        bench.cache().texts(bench.config, "validation")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "labels.npy", "source_names.json", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_entry_is_made_anew_and_said(bench: Bench, name: str, damage: Callable[[Path], None]) -> None:
    path = bench.train()
    good = (path / name).read_bytes()
    damage(path / name)
    if name != "manifest.json" and damage is not flip:
        with pytest.raises(DataError, match=name):
            open_texts(path)  # sizes are checked on opening
    assert bench.train() == path
    assert len(bench.said) == 1
    assert "damaged, making it anew" in bench.said[0]
    assert (path / name).read_bytes() == good
    assert find_fault(path, "texts") is None
    assert not list((bench.folder / "tokens").glob(".tmp-*"))


def test_nothing_is_left_of_a_build_that_fails(bench: Bench) -> None:
    (bench.folder / "data" / "train.csv").write_text("text,label\nabc,\n")
    with pytest.raises(DataError, match=r"train\.csv:2"):
        bench.train()
    assert list((bench.folder / "tokens").iterdir()) == []


BUILDER = """
import sys, time
from pathlib import Path
from trainers.data.cache import ensure_entry
from trainers.data.npy import write_npy
import numpy as np
folder, go = Path(sys.argv[1]), Path(sys.argv[2])
def build(directory):
    print("building", flush=True)
    while not go.exists():
        time.sleep(0.01)
    write_npy(directory / "ids.npy", np.arange(1000))
    return {}
print(ensure_entry(folder, "texts", {"k": 1}, build, 0, print))
"""


def test_two_builders_at_once_end_with_one_good_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "tokens"), str(tmp_path / "go")]
    builders = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "building\n"  # both are inside
    (tmp_path / "go").touch()
    ends = [builder.communicate(timeout=60)[0].strip() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert ends[0] == ends[1]
    assert find_fault(Path(ends[0]), "texts") is None
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [Path(ends[0]).name]


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path) -> None:
    def build(directory: Path) -> dict[str, object]:
        write_npy(directory / "ids.npy", np.zeros(1 << 20, dtype=np.int64))
        return {}

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # files of at most 1 MiB
    try:
        with pytest.raises(CannotWriteError) as caught:
            ensure_entry(tmp_path / "tokens", "texts", {}, build, 8_388_608, print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "tokens") in caught.value.message
    assert "about 8.4 MB needed" in caught.value.message
    assert "MB free" in caught.value.message
    assert list((tmp_path / "tokens").iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CannotWriteError, match="cannot write the cache"):
        ensure_entry(tmp_path / "file" / "tokens", "texts", {}, lambda directory: {}, 0, print)


def test_written_arrays_are_plain_npy(tmp_path: Path) -> None:
    with NpyWriter(tmp_path / "a.npy", "int64") as writer:
        writer.append(np.arange(5))
        writer.append(np.arange(3))
    assert np.load(tmp_path / "a.npy", allow_pickle=False).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    write_npy(tmp_path / "b.npy", np.array([True, False]))
    assert np.load(tmp_path / "b.npy", mmap_mode="r").tolist() == [True, False]
    write_npy(tmp_path / "c.npy", np.empty(0, dtype=np.int32))
    assert len(np.load(tmp_path / "c.npy", mmap_mode="r")) == 0


def test_a_corpus_is_the_sentences_of_all_rows(bench: Bench) -> None:
    corpus = open_corpus(bench.cache().corpus(bench.config, ("train", "unsup"), seed=1))
    assert corpus.num_documents == 3
    assert np.diff(corpus.document_offsets).tolist() == [1, 1, 2]  # "ab. Yes y" has two sentences
    assert np.diff(corpus.sentence_offsets).tolist() == [6, 10, 3, 4]
    #        abc def            second one .                  ab .    yes y
    starts = [0, 3, 6, 12, 15, 16, 18, 19, 22]
    assert np.flatnonzero(~corpus.is_continuation[corpus.ids]).tolist() == starts


def test_a_corpus_of_a_subset_has_the_rows_that_fine_tuning_draws(bench: Bench) -> None:
    rows = [f"{'abc'[number % 3]}{'d' * number},{number % 3 + 8}" for number in range(60)]
    (bench.folder / "data" / "train.csv").write_text("\n".join(["text,label", *rows]))
    bench.config = bench.config.model_copy(update={"subset": Subset(train=10)})
    texts = open_texts(bench.train())
    assert texts.labels is not None
    drawn = subset_rows(texts.labels, 10, seed=5)
    corpus = open_corpus(bench.cache().corpus(bench.config, ("train",), seed=5))
    assert np.diff(corpus.sentence_offsets).tolist() == texts.lengths[drawn].tolist()
    other = open_corpus(bench.cache().corpus(bench.config, ("train",), seed=6))
    assert other.fingerprint != corpus.fingerprint


def test_the_manifest_says_what_the_entry_was_made_of(bench: Bench) -> None:
    manifest = json.loads((bench.train() / "manifest.json").read_text())
    assert manifest["key"]["inputs"][0][0] == "train.csv"
    assert manifest["key"]["reader"] == "csv"
    assert manifest["rows"] == 3
    assert set(manifest["files"]) == {
        "ids.npy", "offsets.npy", "labels.npy", "fingerprints.npy", "source_files.npy", "source_lines.npy", "source_names.json",
    }  # fmt: skip
