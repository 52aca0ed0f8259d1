"""Shared by the tests of the data layer: where the trial data is, a made-up vocabulary, small builders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from trainers.data.building import build_corpus
from trainers.data.cache import ensure_entry
from trainers.data.store import Corpus, open_corpus
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:/\\()"


def shared(name: str) -> Path:
    """A file of the trial data, or the test is skipped."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no trial data at {path}")
    return path


def no_fetch(dataset: str, name: str) -> Path:
    """For data sets with a local path: nothing may be downloaded."""
    raise AssertionError(f"tried to download {dataset} {name}")


def make_vocabulary(folder: Path, words: Sequence[str] = ()) -> Vocabulary:
    """Special tokens, the given words, then every character alone and as a continuation: any ASCII text has tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*SPECIAL_TOKENS, *words, *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    (folder / "vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return load_vocabulary(folder / "vocab.txt")


def make_corpus(folder: Path, documents: Sequence[Sequence[str]], words: Sequence[str]) -> Corpus:
    """A corpus entry of documents given as sentences."""
    tokenizer = Tokenizer(make_vocabulary(folder, words), lower_case=True)
    path = ensure_entry(
        folder / "tokens",
        "corpus",
        {"test": 1},
        lambda directory: build_corpus(directory, documents, tokenizer, lambda num_documents: None),
        0,
        lambda text: None,
    )
    return open_corpus(path)


def random_corpus(folder: Path, num_documents: int, sentence_tokens: tuple[int, int], seed: int = 0) -> Corpus:
    """Documents of 1 to 40 sentences; sentence lengths are uniform in the given range. Words are single tokens."""
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(500)]
    low, high = sentence_tokens
    documents = [
        [
            " ".join(words[word] for word in rng.integers(0, len(words), rng.integers(low, high + 1)))
            for _ in range(rng.integers(1, 41))
        ]
        for _ in range(num_documents)
    ]
    return make_corpus(folder, documents, words)
