"""Sequences of a text by hand-counted tokens: truncation at the paper's sizes, and fractions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema import FinetuneStage, Truncation
from trainers.data.sequences import SequenceMaker, fractions, input_lengths, num_fractions
from trainers.data.vocabulary import Vocabulary

TEXT = np.arange(1000, 2000, dtype=np.int32)  # 1,000 tokens
CLS, SEP = 2, 3
VOCABULARY = Vocabulary(Path("vocab.txt"), {"[PAD]": 0, "[UNK]": 1, "[CLS]": CLS, "[SEP]": SEP, "[MASK]": 4}, 5, "")


def stage(**values: object) -> FinetuneStage:
    return FinetuneStage.model_validate({"task": "finetune", "epochs": 1, "max_length": 512, **values})


def ids_of(text: np.ndarray, **values: object) -> list[list[int]]:
    return [ids.tolist() for ids, _ in SequenceMaker(VOCABULARY, stage(**values))(text)]


def test_the_papers_128_and_382_tokens() -> None:
    expected = [CLS, *range(1000, 1128), *range(1618, 2000), SEP]
    assert ids_of(TEXT, truncation=Truncation(head=128)) == [expected]
    assert (len(expected), 2000 - 1618) == (512, 382)
    assert ids_of(TEXT) == [[CLS, *range(1000, 1510), SEP]]
    assert ids_of(TEXT, truncation=Truncation(head=0)) == [[CLS, *range(1490, 2000), SEP]]


def test_pairs_lose_from_the_longer_side_down_to_509() -> None:
    (sequence,) = SequenceMaker(VOCABULARY, stage(truncation=Truncation(head=128)))(TEXT, TEXT[:100])
    ids, types = sequence
    assert ids.tolist() == [CLS, *range(1000, 1409), SEP, *range(1000, 1100), SEP]  # 509 - 100
    assert (len(ids), int(types.sum())) == (512, 101)


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 12, 13, 61])
@pytest.mark.parametrize("most", [None, 1, 2, 50])
def test_fractions_are_the_text_in_pieces_of_l_tokens(length: int, most: int | None) -> None:
    text, room = TEXT[:length], 6
    pieces = fractions(text, room + 2, most)
    assert len(pieces) == max(1, min(math.ceil(length / room), most or 10**9))
    assert np.concatenate(pieces).tolist() == text[: room * len(pieces)].tolist()
    assert all(len(piece) == room for piece in pieces[:-1])
    values = {"max_length": 8, "hierarchical": "mean", "max_fractions": most}
    made = ids_of(text, **values)
    assert made == [[CLS, *piece.tolist(), SEP] for piece in pieces]
    lengths = np.array([3, length])
    assert num_fractions(lengths, stage(**values)).tolist() == [1, len(pieces)]
    assert input_lengths(lengths, None, stage(**values)).tolist() == [5, sum(map(len, made))]


def test_lengths_of_truncated_texts_and_pairs() -> None:
    assert input_lengths(np.array([0, 509, 510, 511, 1000]), None, stage()).tolist() == [2, 511, 512, 512, 512]
    assert num_fractions(np.array([0, 9999]), stage()).tolist() == [1, 1]
    assert input_lengths(np.array([5, 700]), np.array([4, 3]), stage()).tolist() == [12, 512]


def test_fractions_are_not_for_pairs() -> None:
    settings = stage(hierarchical="max")
    with pytest.raises(ConfigError, match="hierarchical: fractions are for single texts"):
        SequenceMaker(VOCABULARY, settings)(TEXT, TEXT)
    with pytest.raises(ConfigError, match="single texts"):
        input_lengths(np.array([1]), np.array([1]), settings)
