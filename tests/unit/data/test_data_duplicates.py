"""Equal and nearly equal texts: fingerprints, near-duplicates against a comparison of all pairs, and what is dropped where."""

from __future__ import annotations

import random
import unicodedata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from tests.unit.data.helpers import SHARED, make_vocabulary, no_fetch, shared
from trainers.data.dataset_cache import DatasetCache
from trainers.data.duplicates import Duplicates, open_duplicates
from trainers.data.fingerprints import fingerprints
from trainers.data.near_duplicates import MAX_NEIGHBOURS, band_keys, candidate_pairs
from trainers.data.rows import choose_rows
from trainers.data.store import Texts, open_corpus, open_texts
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import load_vocabulary


def same(*texts: str) -> bool:
    return len(set(fingerprints(texts).tolist())) == 1


def differ(*texts: str) -> bool:
    return len(set(fingerprints(texts).tolist())) == len(texts)


def test_case_width_spaces_and_punctuation_do_not_count() -> None:
    assert same("What is the time ?", "what  is the\ttime?", "\"WHAT, is - the: 'time'\"", "What is\nthe time")
    assert same("Straße", "STRASSE", "strasse")
    assert same("ﬁne café №5", "fine cafe\u0301 no5", "ＦＩＮＥ CAFÉ NO5")
    assert same("你好。世界", "你 好 世 界！", "你好世界")
    assert same("\u0390", "\u03aa\u0301")  # the same letter, small and large; folding takes the first apart
    assert same("ΣΊΣΥΦΟΣ", "σίσυφος", "σίσυφοσ")


def test_words_and_their_order_count() -> None:
    assert differ("one two", "two one", "one two two", "one", "onetwo", "one 2", "cafe", "café", "你好", "好你", "")
    assert differ("10", "1 0", "01")
    assert differ("a b c", "a c b", "b a c", "ab c", "abc", "a", "b")
    assert len(set(fingerprints([f"w{number}" for number in range(20_000)]).tolist())) == 20_000


def test_texts_without_words_are_their_signs() -> None:
    assert same("!?", " ! ?", "!\n?")
    assert differ("!?", "?!", "!", "...", "")


def test_fingerprints_do_not_depend_on_their_neighbours() -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices("ab é你.!\n", k=rng.randint(0, 40))) for _ in range(300)]
    alone = [int(fingerprints([text])[0]) for text in texts]
    assert fingerprints(texts).tolist() == alone
    long = ["x" * 700_000, "y", "z " * 400_000, *texts]  # more than one chunk
    assert fingerprints(long)[3:].tolist() == alone
    assert fingerprints([]).tolist() == []


def test_fingerprints_agree_with_a_comparison_of_normalised_words() -> None:
    rng = random.Random(2)
    texts = ["".join(rng.choices("aAÀàﬁ1 ,\n", k=rng.randint(1, 4))) for _ in range(3000)]

    def words(text: str) -> tuple[str, ...]:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        only = "".join(sign if sign.isalnum() else " " for sign in folded)
        return tuple(only.split()) or tuple(folded.split())

    by_words: dict[tuple[str, ...], set[int]] = {}
    for text, mark in zip(texts, fingerprints(texts).tolist(), strict=True):
        if any(sign.isalnum() for sign in text):
            by_words.setdefault(words(text), set()).add(mark)
    assert all(len(marks) == 1 for marks in by_words.values())
    assert len(set.union(*by_words.values())) == len(by_words) > 200


class Bench:
    """A CSV data set whose words are single tokens, and its cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words = [f"w{number}" for number in range(300)]

    def write(self, split: str, texts: list[str]) -> None:
        rows = [f'"{text}",{"ab"[number % 2]}' for number, text in enumerate(texts)]
        (self.folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")

    def config(self, **keys: object) -> DataConfig:
        return DataConfig.model_validate({"dataset": "csv", "path": str(self.folder), **keys})

    def cache(self) -> DatasetCache:
        tokenizer = Tokenizer(make_vocabulary(self.folder / "vocab", self.words), lower_case=True)
        return DatasetCache(self.folder / "tokens", tokenizer, no_fetch, lambda *_: None, lambda text: None)

    def found(self, **keys: object) -> Duplicates:
        return open_duplicates(self.cache().duplicates(self.config(**keys)))

    def rows(self, **keys: object) -> tuple[list[int], list[int]]:
        """(training, validation) rows."""
        cache, config = self.cache(), self.config(**keys)
        facts = {
            "splits": {split: str(cache.texts(config, split)) for split in ("train", "test")},
            "duplicates": str(cache.duplicates(config)),
        }
        chosen = choose_rows(config, facts, seed=1)
        return chosen.train.tolist(), chosen.validation.tolist()


def phrase_sets(texts: list[str]) -> list[set[tuple[str, ...]]]:
    """Runs of three words, by hand."""
    sets = []
    for text in texts:
        words = text.split()
        sets.append({tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))})
    return sets


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


def variants(seed: int, num: int) -> list[str]:
    """Random texts, each followed somewhere by copies with a few words changed, added or removed."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(300)]
    texts = []
    for _ in range(num):
        base = rng.choices(words, k=rng.choice([1, 2, 3, 5, 20, 60, 120]))
        texts.append(" ".join(base))
        for _ in range(rng.randint(0, 3)):
            copy = list(base)
            for _ in range(rng.randint(0, 6)):
                place = rng.randrange(len(copy))
                copy[place : place + rng.randint(0, 1)] = rng.choices(words, k=rng.randint(0, 2)) or [copy[place]]
            texts.append(" ".join(copy))
    rng.shuffle(texts)
    return texts


def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    every = variants(1, 250)
    train, test = [text for number, text in enumerate(every) if number % 4], every[::4] + variants(2, 20)
    bench.write("train", train)
    bench.write("test", test)
    found = bench.found()
    train_sets, test_sets = phrase_sets(train), phrase_sets(test)
    near = [any(jaccard(a, b) >= 0.8 for b in train_sets[:row]) for row, a in enumerate(train_sets)]
    assert 60 < sum(near) < len(train) - 60
    assert (found.earlier >= 0).tolist() == near
    for row, other in enumerate(found.earlier.tolist()):
        assert other < row
        assert other < 0 or jaccard(train_sets[row], train_sets[other]) >= 0.8
    assert found.counts == {
        "repeated": sum(text in train[:row] for row, text in enumerate(train)),
        "near": sum(near),
        "in_test": sum(text in test for text in train),
        "near_test": sum(any(jaccard(a, b) >= 0.8 for b in test_sets) for a in train_sets),
        "test_in_train": sum(text in train for text in test),
        "test_near_train": sum(any(jaccard(a, b) >= 0.8 for b in train_sets) for a in test_sets),
    }
    assert found.counts["near_test"] > found.counts["in_test"] > 5
    assert found.counts["test_near_train"] > found.counts["test_in_train"]
    assert found.in_test.tolist() == [text in test for text in train]


def test_candidates_of_a_band_are_all_pairs_that_agree() -> None:
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 60, (3, 200), dtype=np.uint32)
    expected = {
        (a, b) for a, b in combinations(range(200), 2) if any(keys[band, a] == keys[band, b] != 0 for band in range(3))
    }
    found = list(candidate_pairs(keys))
    assert {(int(a), int(b)) for first, later in found for a, b in zip(first, later, strict=True)} == expected
    assert all(len(set(later.tolist())) == len(later) for _, later in found)
    # where very many agree, each has only so many neighbours
    alike = list(candidate_pairs(np.ones((1, 500), dtype=np.uint32)))
    assert sum(len(later) for _, later in alike) == sum(min(row, MAX_NEIGHBOURS) for row in range(500))
    assert list(candidate_pairs(np.zeros((2, 0), dtype=np.uint32))) == []


def test_pairs_of_texts_are_compared_as_a_whole(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    long = " ".join(bench.words[:40])
    rows = [f"{long},w1,a", f"{long},w2,b", f"w3,{long},a", f"{long} w4,w1,b", f'"{long}, W1",,a']
    (tmp_path / "train.jsonl").write_text("")
    (tmp_path / "train.csv").write_text("\n".join(["text,pair,label", *rows[:4]]) + "\n")
    (tmp_path / "test.csv").write_text(f"text,pair,label\n{long.upper()},W1!,a\nw5,w6,b\n")
    found = bench.found(columns={"text_pair": "pair"})
    assert found.in_test.tolist() == [True, False, False, False]
    assert found.earlier.tolist() == [-1, 0, 1, 2]


def test_dropping_changes_training_rows_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    long = " ".join(bench.words[:40])
    bench.write("train", ["w1 w2", long, "In test!", "w3 w4", f"{long} w5", "W1, w2.", "in  TEST", "w6", "w7", "w8"])
    bench.write("test", ["in test", "w9", "w9"])
    everything = {"validation": 0}
    assert bench.rows(**everything)[0] == list(range(10))
    assert bench.rows(**everything, overlap="drop")[0] == [0, 1, 3, 4, 5, 7, 8, 9]
    assert bench.rows(**everything, near_duplicates="drop")[0] == [0, 1, 2, 3, 7, 8, 9]
    assert bench.rows(**everything, overlap="drop", near_duplicates="drop")[0] == [0, 1, 3, 7, 8, 9]
    train, validation = bench.rows(overlap="drop", validation=3)
    assert sorted(train + validation) == [0, 1, 3, 4, 5, 7, 8, 9]
    counts = bench.found().counts
    assert (counts["test_in_train"], counts["in_test"], counts["repeated"], counts["near"]) == (1, 2, 2, 3)
    bench.write("train", ["in test", "IN TEST"])
    with pytest.raises(DataError, match="every training row is dropped"):
        bench.rows(overlap="drop")


def documents(bench: Bench, **keys: object) -> set[int]:
    config = bench.config(**keys)
    corpus = open_corpus(bench.cache().corpus(config, ("train", "unsup"), seed=1))
    assert len(corpus.row_fingerprints) == corpus.num_documents
    return set(corpus.row_fingerprints.tolist())


def test_a_corpus_leaves_out_what_fine_tuning_drops_and_unlabelled_test_texts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    train = ["w1 w2. W3 w4.", "Test text. Of two sentences.", "w5", "W5!", "w6 w7"]
    bench.write("train", train)
    bench.write("test", ["test text of two sentences", "w8 w9"])
    (tmp_path / "unsup.csv").write_text("text\nW8; w9?\nw10\n")
    marks = dict(zip([*train, "w8 w9", "w10"], fingerprints([*train, "w8 w9", "w10"]).tolist(), strict=True))
    assert marks["w5"] == marks["W5!"]
    assert documents(bench) == set(marks.values())
    overlapping = {marks[train[1]], marks["w8 w9"]}
    assert documents(bench, overlap="drop") == set(marks.values()) - overlapping
    path = bench.cache().corpus(bench.config(overlap="drop", near_duplicates="drop"), ("train", "unsup"), seed=1)
    corpus = open_corpus(path)
    assert (corpus.num_documents, corpus.num_left_out) == (4, 3)
    drawn = bench.config(overlap="drop", subset={"train": 3})
    kept = open_corpus(bench.cache().corpus(drawn, ("train",), seed=1)).row_fingerprints.tolist()
    assert len(kept) == 3
    texts = open_texts(bench.cache().texts(drawn, "train"))
    rows = bench.rows(overlap="drop", subset={"train": 3})
    assert kept == texts.row_fingerprints[sorted(rows[0] + rows[1])].tolist()


def test_a_corpus_without_the_test_split_of_another_data_set(tmp_path: Path) -> None:
    one, two = Bench(tmp_path / "one"), Bench(tmp_path / "two")
    for bench in (one, two):
        bench.folder.mkdir()
    one.write("train", ["w1", "w2 w3", "w4"])
    one.write("test", ["w5"])
    two.write("train", ["w6", "w9"])
    two.write("test", ["W2, w3", "w7"])
    plain = one.cache().corpus(one.config(), ("train",), 1)
    path = one.cache().corpus(one.config(), ("train",), 1, without=[two.config()])
    corpus = open_corpus(path)
    assert (corpus.num_documents, corpus.num_left_out) == (2, 1)
    assert path != plain
    two.write("test", ["w8"])
    again = open_corpus(one.cache().corpus(one.config(), ("train",), 1, without=[two.config()]))
    assert (again.num_documents, again.num_left_out) == (3, 0)  # another test split, another corpus


def test_overlap_without_a_test_split_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("train", ["w1", "w2"])
    assert bench.found().counts["test_in_train"] == 0
    with pytest.raises(DataError, match=r"data\.overlap: 'drop' compares with the test split, and csv has none"):
        bench.found(overlap="drop")


def real(name: str, path: Path, folder: Path) -> tuple[Texts, Texts, Duplicates]:
    tokenizer = Tokenizer(load_vocabulary(SHARED / "vocab/bert-base-uncased-vocab.txt"), lower_case=True)
    cache = DatasetCache(folder / "tokens", tokenizer, no_fetch, lambda *_: None, lambda text: None)
    config = DataConfig.model_validate({"dataset": name, "path": str(path)})
    train, test = (open_texts(cache.texts(config, split)) for split in ("train", "test"))
    return train, test, open_duplicates(cache.duplicates(config))


def test_trec(tmp_path: Path) -> None:
    _, _, found = real("trec", shared("trec"), tmp_path)
    # 10 test questions stand in the training file as they are, one more but for a quotation mark (comm on the sorted files)
    assert found.counts["test_in_train"] == 11
    lines = (SHARED / "trec/train_5500.label").read_text("latin-1").splitlines()
    questions = ["".join(filter(str.isalnum, line.split(" ", 1)[1].lower())) for line in lines]
    assert found.counts["repeated"] == len(questions) - len(set(questions)) == 76


def test_imdb_sample(tmp_path: Path) -> None:
    train, test, found = real("imdb", shared("imdb/aclImdb_sample.tar.gz"), tmp_path)
    assert (len(train), len(test)) == (5000, 2000)
    assert (found.counts["repeated"], found.counts["near"], found.counts["test_in_train"]) == (2, 2, 3)


def test_a_text_of_no_token_is_near_to_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("train", ["\u200b", "w1", "\u200d", "w2"])
    bench.write("test", ["w3"])
    texts = open_texts(bench.cache().texts(bench.config(), "train"))
    assert texts.lengths.tolist() == [0, 1, 0, 1]
    assert (band_keys(texts, lambda rows: None)[:, [0, 2]] == 0).all()
    assert bench.found().counts["near"] == 0


def test_a_test_split_that_is_larger_and_repeats_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    long = " ".join(bench.words[:40])
    bench.write("train", ["w1", f"{long} w2"])
    bench.write("test", [f"{long} w{number % 5}" for number in range(30)])
    found = bench.found()
    assert found.in_test.tolist() == [False, True]
    assert (found.counts["test_in_train"], found.counts["test_near_train"]) == (6, 30)


def test_short_texts_do_not_depend_on_what_follows(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.write("train", ["w1 w2", "w3", "w1 w2", "w4", "w1", "w5 w6 w7", "w1", "w1 w2"])
    texts = open_texts(bench.cache().texts(bench.config(), "train"))
    keys = band_keys(texts, lambda rows: None)
    for same_rows in ((0, 2, 7), (4, 6)):
        assert len({keys[:, row].tobytes() for row in same_rows}) == 1
    assert len({keys[:, row].tobytes() for row in (0, 1, 3, 4, 5)}) == 5
