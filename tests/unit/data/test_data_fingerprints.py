"""Fingerprints, and documents of a corpus that also stand in a test split."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from configs.schema import DataConfig
from tests.unit.data.helpers import make_vocabulary, no_fetch
from trainers.data.dataset_cache import DatasetCache
from trainers.data.fingerprints import EMPTY, fingerprint, fingerprints
from trainers.data.store import open_corpus
from trainers.data.tokenize import Tokenizer


def test_the_number_is_stable() -> None:
    digest = hashlib.blake2b(b"a1b", digest_size=8).digest()
    assert fingerprint(" A-1\tb!") == int.from_bytes(digest, "little")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The film.", "the  FILM !"),
        ("stra\u00dfe", "STRASSE"),
        ("\ufb01ne", "fine"),
        ("caf\u00e9", "cafe\u0301"),
        ("a_b", "ab"),
        ("\uff12\uff10", "20"),
        ("\u6570\u636e\u3002", "\u6570 \u636e"),
    ],
)
def test_case_spacing_punctuation_and_unicode_form_do_not_count(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)


def test_other_texts_have_other_fingerprints() -> None:
    texts = ["a", "b", "ab", "cafe", "caf\u00e9", "a1", "1a", ""]
    assert len({fingerprint(text) for text in texts}) == len(texts)
    assert fingerprint("?!") == fingerprint("") == EMPTY
    assert len(fingerprints(["a", "A.", "b", "..."])) == 2


def test_documents_of_test_splits_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = {"train": ["One two. Three!", "four five", "six", "seven", "?"], "test": ["ONE TWO three", "nine", "!"]}
    for split, texts in rows.items():
        (tmp_path / f"{split}.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    data = DataConfig.model_validate({"dataset": "csv", "path": str(tmp_path), "columns": {"label": None}})
    (tmp_path / "other.jsonl").write_text('{"text": "s e v e n", "p": "x"}\n{"text": "four", "p": "five"}\n')
    pairs = DataConfig.model_validate(
        {
            **{"dataset": "jsonl", "path": str(tmp_path), "columns": {"text_pair": "p", "label": None}},
            "files": {"train": "other.jsonl", "test": "other.jsonl"},
        }
    )
    tokenizer = Tokenizer(make_vocabulary(tmp_path / "v"), lower_case=True)
    cache = DatasetCache(tmp_path / "tokens", tokenizer, no_fetch, lambda *progress: None, lambda text: None)
    whole, one, both = (open_corpus(cache.corpus(data, ["train"], 1, tests)) for tests in ((), (data,), (data, pairs)))
    assert [(each.num_documents, each.num_left_out) for each in (whole, one, both)] == [(5, 0), (4, 1), (3, 2)]
    assert len({each.fingerprint for each in (whole, one, both)}) == 3
    (tmp_path / "test.csv").write_text("text\nsix\nseven\n")
    fresh = DatasetCache(tmp_path / "tokens", tokenizer, no_fetch, lambda *progress: None, lambda text: None)
    changed = open_corpus(fresh.corpus(data, ["train"], 1, (data,)))
    assert (changed.num_documents, changed.num_left_out) == (3, 2)
