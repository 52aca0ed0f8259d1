"""Pre-training instances against the words of Google's recipe."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from configs.errors import DataError
from tests.unit.data.helpers import make_corpus, random_corpus
from trainers.data.documents import join_corpora
from trainers.data.instances import NO_NEXT, InstancePlan, Recipe, plan_epoch
from trainers.data.store import Corpus


def plan(
    corpus: Corpus, *, seed: int = 1, epoch: int = 0, max_length: int = 128, short: float = 0.1, nsp: bool = True
) -> InstancePlan:
    return plan_epoch(join_corpora([corpus], [1.0]), Recipe(max_length, short, nsp, alone=False), seed, epoch)


def bounds(corpus: Corpus) -> list[tuple[int, int]]:
    """Token range of every document."""
    return list(pairwise(corpus.sentence_offsets[corpus.document_offsets].tolist()))


def document_at(corpus: Corpus, token: int) -> int:
    starts = corpus.sentence_offsets[corpus.document_offsets]
    return int(np.searchsorted(starts, token, side="right")) - 1


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """All sentences have 5 tokens: 25 of them fill the 125 of a pair, so nothing is ever cut."""
    return random_corpus(tmp_path_factory.mktemp("even"), 300, (5, 5))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Sentences of 1 to 60 tokens: most pairs have to be cut."""
    return random_corpus(tmp_path_factory.mktemp("uneven"), 300, (1, 60))


def test_every_token_of_every_document_is_used_once_as_a_or_its_continuation(even: Corpus) -> None:
    result = plan(even)
    covered: dict[int, list[tuple[int, int]]] = {}
    for index in range(len(result)):
        start = int(result.starts_a[index])
        end = start + int(result.lengths_a[index])
        if not result.is_random_next[index]:
            assert result.starts_b[index] == end  # B continues A
            end += int(result.lengths_b[index])
        covered.setdefault(document_at(even, start), []).append((start, end))
    assert sorted(covered) == list(range(even.num_documents))
    for document, (first, last) in enumerate(bounds(even)):
        ranges = covered[document]
        assert [ranges[0][0], ranges[-1][1]] == [first, last]
        assert all(one[1] == two[0] for one, two in pairwise(ranges))


def test_parts_come_from_the_right_documents_and_fit(uneven: Corpus) -> None:
    for epoch in range(3):
        result = plan(uneven, epoch=epoch)
        assert result.lengths.max() <= 128
        assert (result.lengths_a > 0).all()
        assert (result.lengths_b > 0).all()
        for index in range(len(result)):
            start_a, start_b = int(result.starts_a[index]), int(result.starts_b[index])
            document = document_at(uneven, start_a)
            assert document_at(uneven, start_a + int(result.lengths_a[index]) - 1) == document
            other = document_at(uneven, start_b)
            assert document_at(uneven, start_b + int(result.lengths_b[index]) - 1) == other
            assert (other != document) == bool(result.is_random_next[index])
            if not result.is_random_next[index]:
                assert start_b >= start_a + int(result.lengths_a[index])


def test_half_of_the_longer_chunks_get_a_random_second_part(even: Corpus) -> None:
    randoms = total = 0
    for epoch in range(5):
        result = plan(even, epoch=epoch, short=0.0)
        ends = np.array([end for _, end in bounds(even)])
        documents = np.searchsorted(ends, result.starts_a, side="right")
        several = ends[documents] - result.starts_a > 5  # at least two sentences were left
        randoms += int(result.is_random_next[several].sum())
        total += int(several.sum())
        assert result.is_random_next[~several].all()  # a single sentence always gets a random B
    assert abs(randoms / total - 0.5) < 4 * 0.5 / total**0.5


def test_short_targets_are_drawn_for_a_tenth_of_the_documents(even: Corpus) -> None:
    long_enough = [first for first, last in bounds(even) if last - first >= 125]
    short = []
    for epoch in range(40):
        result = plan(even, epoch=epoch)
        totals = dict(zip(result.starts_a.tolist(), result.lengths.tolist(), strict=True))
        # the first chunk of a long document with the full target has 125 tokens unless a random B ended early
        follow = dict(zip(result.starts_a.tolist(), result.is_random_next.tolist(), strict=True))
        short += [totals[first] < 128 for first in long_enough if not follow[first]]
    # short targets are uniform in 2..125 and sentences of 5 round them up: 5 of the 124 values still reach 125
    expected = 0.1 * 119 / 124
    assert abs(np.mean(short) - expected) < 4 * (expected / len(short)) ** 0.5


def test_cuts_take_from_both_ends_of_the_longer_part(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(500)]
    long = " ".join(words[:400])
    corpus = make_corpus(tmp_path, [[long], [long]], words)
    cut_in_front = []
    for epoch in range(400):
        result = plan(corpus, epoch=epoch, short=0.0)
        assert result.lengths.tolist() == [128, 128]
        assert result.lengths_a.tolist() == [63, 63]  # 125 shared by two long parts
        assert result.lengths_b.tolist() == [62, 62]
        cut_in_front.append(int(result.starts_a[0]))
    # 337 tokens dropped by a fair coin: mean 168.5, standard deviation sqrt(337) / 2 = 9.18
    assert abs(np.mean(cut_in_front) - 168.5) < 4 * 9.18 / 20
    assert 7.5 < np.std(cut_in_front) < 11


def test_an_instance_is_what_its_ranges_say(uneven: Corpus) -> None:
    result = plan(uneven)
    items = np.array([0, 5, len(result) - 1])
    ids, types, offsets, labels = result.gather(items)
    for place, item in enumerate(items.tolist()):
        a = uneven.ids[result.starts_a[item] :][: result.lengths_a[item]].tolist()
        b = uneven.ids[result.starts_b[item] :][: result.lengths_b[item]].tolist()
        one_ids, one_types, one_label = result.instance(item)
        assert one_ids.tolist() == [uneven.cls_id, *a, uneven.sep_id, *b, uneven.sep_id]
        assert one_types.tolist() == [0] * (len(a) + 2) + [1] * (len(b) + 1)
        assert one_label == int(result.is_random_next[item]) == labels[place]
        assert len(one_ids) == result.lengths[item]
        assert np.array_equal(ids[offsets[place] : offsets[place + 1]], one_ids)
        assert np.array_equal(types[offsets[place] : offsets[place + 1]], one_types)


def test_without_nsp_every_token_is_in_one_contiguous_stretch(uneven: Corpus) -> None:
    result = plan(uneven, nsp=False)
    ends = result.starts_a + result.lengths_a
    assert result.starts_a[0] == 0
    assert ends[-1] == uneven.num_tokens
    assert np.array_equal(ends[:-1], result.starts_a[1:])
    for index in range(len(result)):
        assert document_at(uneven, int(result.starts_a[index])) == document_at(uneven, int(ends[index]) - 1)
    full = plan(uneven, nsp=False, short=0.0)
    expected = [min(126, last - at) + 2 for first, last in bounds(uneven) for at in range(first, last, 126)]
    assert full.lengths.tolist() == expected
    ids, types, label = full.instance(0)
    assert ids.tolist() == [uneven.cls_id, *uneven.ids[: full.lengths_a[0]].tolist(), uneven.sep_id]
    assert (int(types.max()), label) == (0, NO_NEXT)


def test_plans_depend_on_seed_and_epoch_only(uneven: Corpus) -> None:
    one, two = plan(uneven), plan(uneven)
    assert np.array_equal(one.starts_b, two.starts_b)
    assert np.array_equal(one.lengths_a, two.lengths_a)
    for other in (plan(uneven, epoch=1), plan(uneven, seed=2)):
        assert other.starts_b[:50].tolist() != one.starts_b[:50].tolist()


def test_a_document_is_planned_alike_whatever_the_others_are(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(20)]
    first = [" ".join(words[:5])] * 30
    results = []
    for name, rest in (("one", [" ".join(words[5:10])] * 3), ("two", [" ".join(words[10:20])] * 9)):
        corpus = make_corpus(tmp_path / name, [first, rest], words)
        result = plan(corpus)
        own = result.starts_a < 150
        results.append((result.starts_a[own].tolist(), result.is_random_next[own].tolist()))
    assert results[0] == results[1]


def test_random_parts_need_a_second_document(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [["w1 w2", "w3"]], ["w1", "w2", "w3"])
    with pytest.raises(DataError, match="1 document in the corpus"):
        plan(corpus)
    assert len(plan(corpus, nsp=False)) == 1


Outcome = tuple[tuple[str, str, bool], ...]
"""The (A, B, is random) of a document's instances, in order."""


def outcomes(sentences: str, other: str) -> dict[Outcome, Fraction]:
    """Every way in which Google's recipe can cut a document of one-letter sentences that fits one sequence, with its probability."""
    if not sentences:
        return {(): Fraction(1)}
    found: dict[Outcome, Fraction] = {}
    splits = range(1, len(sentences)) if len(sentences) > 1 else [1]
    for split in splits:
        a, rest = sentences[:split], sentences[split:]
        share = Fraction(1, len(splits))
        chance_random = Fraction(1, 2) if rest else Fraction(1)
        if rest:
            found[((a, rest, False),)] = share * (1 - chance_random)
        for start in range(len(other)):  # B: the other document from a random sentence on; what A left is put back
            for later, probability in outcomes(rest, other).items():
                outcome = ((a, other[start:], True), *later)
                weight = share * chance_random * probability / len(other)
                found[outcome] = found.get(outcome, Fraction(0)) + weight
    return found


@pytest.mark.parametrize(("own", "other"), [("abc", "xy"), ("abcd", "x"), ("a", "xyz")])
def test_a_small_document_is_cut_in_every_way_as_often_as_the_recipe_says(tmp_path: Path, own: str, other: str) -> None:
    corpus = make_corpus(tmp_path, [list(own), list(other)], [*own, *other])
    letter = dict(zip(corpus.ids.tolist(), own + other, strict=True))
    expected, epochs = outcomes(own, other), 3000
    assert sum(expected.values()) == 1
    seen: Counter[Outcome] = Counter()
    for epoch in range(epochs):
        result = plan(corpus, epoch=epoch, short=0.0)
        rows = zip(
            *(getattr(result, name).tolist() for name in ("starts_a", "lengths_a", "starts_b", "lengths_b")),
            result.is_random_next.tolist(),
            strict=True,
        )
        read = lambda start, length: "".join(letter[each] for each in corpus.ids[start : start + length].tolist())  # noqa: E731
        seen[tuple((read(a, n), read(b, m), random) for a, n, b, m, random in rows if a < len(own))] += 1
    assert set(seen) <= set(expected)
    for outcome, probability in expected.items():
        p = float(probability)
        assert abs(seen[outcome] - epochs * p) <= 4.5 * (epochs * p * (1 - p)) ** 0.5, (outcome, seen[outcome], p)
