"""Packed instances against their definition, sentence by sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.helpers import make_corpus, random_corpus
from trainers.data.documents import Documents, join_corpora
from trainers.data.masking import Masking, mask_batch
from trainers.data.packing import PackedPlan, join_packed, plan_packed
from trainers.data.store import Corpus


@pytest.fixture(scope="module", params=[(1, 9), (1, 90)])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Short sentences only, and some that are longer than a sequence of 64."""
    return random_corpus(tmp_path_factory.mktemp("packed"), 80, request.param)


def documents_of(corpus: Corpus) -> Documents:
    return join_corpora([corpus], (1.0,))


def segments(plan: PackedPlan) -> list[list[tuple[int, int]]]:
    pairs = list(zip(plan.starts.tolist(), (plan.starts + plan.segment_lengths).tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(plan.first_segments)]


def test_every_token_is_in_one_instance(corpus: Corpus) -> None:
    plan = plan_packed(documents_of(corpus), 64, 1, 0)
    used = np.zeros(corpus.num_tokens, dtype=int)
    for instance in segments(plan):
        for start, end in instance:
            used[start:end] += 1
    assert (used == 1).all()
    assert plan.lengths.max() <= 64


def test_sequences_are_filled_with_whole_sentences_in_the_order_of_documents(corpus: Corpus) -> None:
    """First come, first served: the same layout from a plain loop over sentences."""
    plan = plan_packed(documents_of(corpus), 64, 1, 0)
    found = segments(plan)
    starts = corpus.sentence_offsets[corpus.document_offsets]
    visited = [int(np.searchsorted(starts, start, side="right")) - 1 for instance in found for start, _ in instance]
    order = list(dict.fromkeys(visited))
    assert sorted(order) == list(range(corpus.num_documents))
    assert order != sorted(order)
    expected: list[list[list[int]]] = [[]]

    def length(instance: list[list[int]]) -> int:
        return 1 + sum(len(segment) + 1 for segment in instance)

    for document in order:
        opened = False
        for sentence in range(corpus.document_offsets[document], corpus.document_offsets[document + 1]):
            tokens = list(range(corpus.sentence_offsets[sentence], corpus.sentence_offsets[sentence + 1]))
            pieces = [tokens]
            if len(tokens) > 62:
                pieces = [tokens[at : at + 62] for at in range(0, len(tokens), 62)]
            for piece in pieces:
                needed = len(piece) + (0 if opened else 1)
                if length(expected[-1]) + needed > 64:
                    expected.append([])
                    opened = False
                if opened:
                    expected[-1][-1].extend(piece)
                else:
                    expected[-1].append(list(piece))
                    opened = True
    assert found == [[(part[0], part[-1] + 1) for part in instance] for instance in expected if instance]


def test_what_the_model_gets(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(20)]
    corpus = make_corpus(tmp_path, [["w1 w2", "w3"], ["w4"], ["w5 w6 w7 w8 w9 w10"]], words)
    plan = plan_packed(documents_of(corpus), 8, 4, 2)
    ids, types, offsets, _ = plan.gather(np.arange(len(plan)))
    text = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    cls, sep = corpus.cls_id, corpus.sep_id
    docs = {1: corpus.ids[:3].tolist(), 4: corpus.ids[3:4].tolist(), 5: corpus.ids[4:].tolist()}
    full = [cls, *docs[5], sep]
    pair = ([cls, *docs[1], sep, *docs[4], sep], [cls, *docs[4], sep, *docs[1], sep])
    apart = [[cls, *docs[1], sep], [cls, *docs[4], sep]]
    assert full in text
    rest = [each for each in text if each != full]
    assert rest[0] in pair or sorted(rest) == sorted(apart)
    assert types.max() == 0
    assert plan.lengths.tolist() == [len(each) for each in text]


def test_special_tokens_are_never_masked_and_words_end_at_them(corpus: Corpus) -> None:
    plan = plan_packed(documents_of(corpus), 64, 1, 0)
    items = np.arange(len(plan))[::-1].copy()
    ids, _, offsets, _ = plan.gather(items)
    assert np.array_equal(np.diff(offsets), plan.lengths[items])
    continues = np.zeros(1000, dtype=bool)
    continues[::3] = True
    masking = Masking((0, corpus.cls_id, corpus.sep_id), 1000, 4, 0.15, 20, True, continues)
    masked, positions, _, _ = mask_batch(ids, offsets, items, 1, 0, masking)
    special = np.isin(ids, [corpus.cls_id, corpus.sep_id])
    assert not special[positions].any()
    assert np.array_equal(masked[special], ids[special])


def test_the_order_is_one_of_seed_and_epoch(corpus: Corpus) -> None:
    documents = documents_of(corpus)
    one = plan_packed(documents, 64, 1, 0)
    assert np.array_equal(one.starts, plan_packed(documents, 64, 1, 0).starts)
    for seed, epoch in ((1, 1), (2, 0)):
        assert plan_packed(documents, 64, seed, epoch).starts[:20].tolist() != one.starts[:20].tolist()
    other = plan_packed(documents, 64, 1, 1)
    both = join_packed([one, other])
    assert segments(both) == segments(one) + segments(other)
