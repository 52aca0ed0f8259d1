"""Token ids against the port's saved ones, PaddleNLP's tokenizer and hand-made vocabularies."""

from __future__ import annotations

import csv
import json
import random
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.unit.data.helpers import make_vocabulary, shared
from trainers.data.tokenize import Tokenizer
from trainers.data.truncate import assemble, truncate_single
from trainers.data.vocabulary import load_vocabulary


def test_the_54_saved_rows_and_their_cuts() -> None:
    vocabulary = load_vocabulary(shared("vocab/bert-base-uncased-vocab.txt"))
    tokenizer = Tokenizer(vocabulary, lower_case=False)
    rows = [json.loads(line) for line in shared("fixtures/seed_tokenisation.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 54
    cut = 0
    for row in rows:
        text = row["text"].replace("<br />", "") if row["remove_br"] else row["text"]
        ids = truncate_single(tokenizer.encode(text), row["max_seq_length"], row["head_tokens"], None)
        cut += row["head_tokens"] is not None
        assert assemble(ids, None, vocabulary.cls_id, vocabulary.sep_id)[0].tolist() == row["input_ids"]
    assert cut == 7


def test_pieces_case_accents_chinese_and_unknown_words(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(tmp_path, ["hello", "play", "##ing", "cafe", "中", "文", "Hello"])

    def tokens(text: str, lower_case: bool = True) -> list[str]:
        names = {number: token for token, number in vocabulary.ids.items()}
        return [names[number] for number in Tokenizer(vocabulary, lower_case).encode(text).tolist()]

    assert tokens("Hello, PLAYING\tCafé") == ["hello", ",", "play", "##ing", "cafe"]
    assert tokens("Hello", lower_case=False) == ["Hello"]
    assert tokens("中文play") == ["中", "文", "play"]
    assert tokens("hel\x00lo \ufffdhe\u200bllo") == ["hello", "hello"]  # control and format characters vanish
    assert tokens("😀 hello") == ["[UNK]", "hello"]
    assert tokens("a" * 101) == ["[UNK]"]
    assert len(tokens("a" * 100)) == 100
    assert tokens("") == []


def test_batches_are_the_single_texts_one_after_another(tmp_path: Path) -> None:
    tokenizer = Tokenizer(make_vocabulary(tmp_path, ["hello", "world"]), lower_case=True)
    texts = ["hello world", "", "world", "abc hello"]
    ids, lengths = tokenizer.encode_batch(texts)
    assert lengths.tolist() == [2, 0, 1, 4]
    assert ids.tolist() == np.concatenate([tokenizer.encode(text) for text in texts]).tolist()


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nhello\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no entry \[CLS\], \[SEP\], \[MASK\] in a vocabulary of 3"):
        load_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(DataError, match="cannot read the vocabulary"):
        load_vocabulary(tmp_path / "none.txt")


def real_texts() -> list[str]:
    texts = shared("trec/train_5500.label").read_text("latin-1").split("\n")[:1500]
    with shared("ag_news/test.first1000.csv").open(encoding="utf-8", newline="") as stream:
        texts += [" ".join(row) for row in csv.reader(stream)]
    with tarfile.open(shared("imdb/aclImdb_sample.tar.gz")) as archive:
        members = [member for member in archive.getmembers() if member.isreg()][::40]
        streams = [archive.extractfile(member) for member in members]
        texts += [stream.read().decode("utf-8") for stream in streams if stream is not None]
    return texts


def fuzzed_texts() -> list[str]:
    """Characters of many scripts and categories, in short words; left out are unassigned ones (they
    differ by Unicode version) and the capital sigma (the library has no final form for it)."""
    rng = random.Random(0)
    ranges = [
        (0x20, 0x250),
        (0x300, 0x600),
        (0x2000, 0x2100),
        (0x3000, 0x3100),
        (0x4E00, 0x4E80),
        (0x1F600, 0x1F640),
        (0xFF00, 0xFF60),
    ]
    texts = []
    for _ in range(800):
        characters = [chr(rng.randrange(*rng.choice(ranges))) for _ in range(30)]
        known = [character for character in characters if unicodedata.category(character) != "Cn" and character != "Σ"]
        texts.append("".join(character if rng.random() < 0.8 else " " for character in known))
    return [*texts, "İstanbul ŞIŞLI", "don't stop", "x\ty\r\nz"]


def google_tokens(text: str, ids: dict[str, int], lower_case: bool) -> list[int]:
    """BERT's tokenisation as Google's tokenization.py describes it, character by character."""
    words: list[str] = []
    word = ""
    for character in text:
        category = unicodedata.category(character)
        if character in "\0\ufffd" or (category.startswith("C") and character not in "\t\n\r"):
            continue
        if character in " \t\n\r" or category in ("Zs", "Zl", "Zp"):
            words, word = [*words, word], ""
        elif 0x4E00 <= ord(character) <= 0x9FFF or 0x3400 <= ord(character) <= 0x4DBF:
            words, word = [*words, word, character], ""
        else:
            word += character
    pieces: list[str] = []
    for raw in [*words, word]:
        bare = "".join(c for c in unicodedata.normalize("NFD", raw.lower()) if unicodedata.category(c) != "Mn")
        part = ""
        for character in bare if lower_case else raw:
            ascii_sign = character.isascii() and not character.isalnum() and character.isprintable()
            if ascii_sign or unicodedata.category(character).startswith("P"):
                pieces, part = [*pieces, part, character], ""
            else:
                part += character
        pieces.append(part)
    found: list[int] = []
    for piece in filter(None, pieces):
        found += word_piece(piece, ids)
    return found


def word_piece(word: str, ids: dict[str, int]) -> list[int]:
    """Greedy longest match first."""
    if len(word) > 100:
        return [ids["[UNK]"]]
    found = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in ids), None)
        if end is None:
            return [ids["[UNK]"]]
        found.append(ids[prefix + word[start:end]])
        start = end
    return found


@pytest.mark.parametrize("lower_case", [True, False])
def test_ids_equal_googles_description(lower_case: bool) -> None:
    vocabulary = load_vocabulary(shared("vocab/bert-base-uncased-vocab.txt"))
    texts = real_texts()[::4] + fuzzed_texts()
    assert len(texts) > 1200
    ids, lengths = Tokenizer(vocabulary, lower_case).encode_batch(texts)
    for text, row in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        assert row.tolist() == google_tokens(text, vocabulary.ids, lower_case), text


@pytest.mark.slow
@pytest.mark.parametrize("lower_case", [True, False])
def test_ids_equal_paddlenlps_tokenizer(lower_case: bool) -> None:
    transformers = pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed")
    vocab = shared("vocab/bert-base-uncased-vocab.txt")
    reference = transformers.BertTokenizer(str(vocab), do_lower_case=lower_case)
    # PaddleNLP alone also splits words at signs like the acute accent or the trade mark; BERT was not trained so
    texts = [text for text in real_texts() + fuzzed_texts() if not any(map(paddlenlp_alone_splits, text))]
    assert len(texts) > 2500
    ids, lengths = Tokenizer(load_vocabulary(vocab), lower_case).encode_batch(texts)
    for text, row in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        expected = reference(text, add_special_tokens=False, return_token_type_ids=False)["input_ids"]
        assert row.tolist() == expected, text


def paddlenlp_alone_splits(character: str) -> bool:
    return not character.isascii() and (
        unicodedata.category(character).startswith("S")
        or ord(character) in (0xAD, 0xB2, 0xB5, 0xBA, 0xD8, 0x14B, 0x1B1, 0x3007)
    )
