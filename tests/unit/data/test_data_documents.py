"""Several corpora in one numbering: joined token ids, passes per epoch, held-out documents, static draws."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import PretrainStage
from tests.unit.data.helpers import make_corpus, make_vocabulary, random_corpus
from trainers.data.documents import Documents, hold_out, join_corpora, visits
from trainers.data.instances import NO_NEXT, InstancePlan, Recipe, plan_epoch
from trainers.data.pretraining import CorpusFacts, DrawnEpoch, Sources, open_sources
from trainers.data.store import Corpus

PAIRS = Recipe(64, 0.1, nsp=True, alone=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    folder = tmp_path_factory.mktemp("two")
    return random_corpus(folder / "a", 40, (1, 30), seed=1), random_corpus(folder / "b", 25, (3, 9), seed=2)


def texts_of(corpus: Corpus) -> list[tuple[int, ...]]:
    """The token ids of every document."""
    starts = corpus.sentence_offsets[corpus.document_offsets]
    return [tuple(corpus.ids[a:b].tolist()) for a, b in pairwise(starts)]


def origin(documents: Documents, plan: InstancePlan) -> np.ndarray:
    """The document that the A of every instance is from."""
    starts = documents.sentence_offsets[documents.firsts]
    return np.searchsorted(starts, plan.starts_a, side="right") - 1


def test_joined_corpora_hold_the_documents_of_both(two: tuple[Corpus, Corpus]) -> None:
    documents = join_corpora(two, (1.0, 1.0))
    expected = [text for corpus in two for text in texts_of(corpus)]
    bounds = documents.sentence_offsets
    found = [
        tuple(documents.ids[int(bounds[first]) : int(bounds[stop])].tolist())
        for first, stop in zip(documents.firsts, documents.stops, strict=True)
    ]
    assert found == expected
    assert documents.bounds == (0, 40, 65)


def test_a_random_next_part_comes_from_any_document_of_either_corpus(two: tuple[Corpus, Corpus]) -> None:
    documents = join_corpora(two, (1.0, 1.0))
    crossed: Counter[tuple[bool, bool]] = Counter()
    for epoch in range(8):
        plan = plan_epoch(documents, PAIRS, 1, epoch)
        starts = documents.sentence_offsets[documents.firsts]
        own, other = origin(documents, plan), np.searchsorted(starts, plan.starts_b, side="right") - 1
        assert (own != other)[plan.is_random_next].all()
        crossed.update(
            zip((own >= 40)[plan.is_random_next].tolist(), (other >= 40)[plan.is_random_next].tolist(), strict=True)
        )
    for source in (False, True):  # 25 of the 64 other documents, or 24, are of the second corpus
        total = crossed[source, True] + crossed[source, False]
        share = (25 - source) / 64
        assert abs(crossed[source, True] / total - share) < 4 * (share * (1 - share) / total) ** 0.5


def test_weights_are_passes_per_epoch() -> None:
    bounds, weights = (0, 10, 17, 20), (2.0, 0.5, 1.0)
    over = []
    for epoch in range(4):
        items, passes = visits(bounds, weights, 5, epoch)
        counts = Counter(items.tolist())
        assert all(counts[item] == 2 for item in range(10))
        assert all(counts[item] == 1 for item in range(17, 20))
        over.append([item for item in counts if 10 <= item < 17])
        assert len(set(zip(items.tolist(), passes.tolist(), strict=True))) == len(items), "two draws are two streams"
    assert [len(half) for half in over] == [3, 4, 3, 4]
    for first in (0, 2):
        assert sorted(over[first] + over[first + 1]) == list(range(10, 17)), "two epochs cover it"
    assert sorted(over[0]) != sorted(over[2]), "a fresh half in the next two"
    again = visits(bounds, weights, 5, 3)[0]
    assert sorted(item for item in again.tolist() if 10 <= item < 17) == sorted(over[3]), "without the epochs before"


@pytest.mark.parametrize("weight", [0.3, 0.1, 1.25, 2.7, 0.75])
def test_any_weight_passes_over_all_documents_equally_often(weight: float) -> None:
    size, epochs = 11, 60
    counts = np.zeros(size, dtype=int)
    for epoch in range(epochs):
        np.add.at(counts, visits((0, size), (weight,), 1, epoch)[0], 1)
    assert counts.sum() == int(epochs * weight * size + 1e-9)
    assert counts.max() - counts.min() <= 1


def test_a_document_seen_twice_in_an_epoch_gives_two_different_draws(two: tuple[Corpus, Corpus]) -> None:
    documents = join_corpora(two[:1], (2.0,))
    plan = plan_epoch(documents, PAIRS, 1, 0)
    half = len(plan_epoch(join_corpora(two[:1], (1.0,)), PAIRS, 1, 0))
    first, second = (plan.lengths_a[:40].tolist(), plan.lengths_a[half : half + 40].tolist())
    assert origin(documents, plan)[half] == 0, "the second pass begins behind the first"
    assert first != second


def test_held_out_documents_are_a_share_of_every_corpus() -> None:
    train, held = hold_out((0, 100, 140), 14, 3)
    assert (len(held), (held < 100).sum(), (held >= 100).sum()) == (14, 10, 4)
    assert sorted([*train, *held]) == list(range(140))
    assert hold_out((0, 100, 140), 0.1, 3)[1].tolist() == held.tolist()
    assert hold_out((0, 100, 140), 14, 4)[1].tolist() != held.tolist()
    assert len(hold_out((0, 10), 0.0, 1)[1]) == 0
    for wrong in (10, 0.01, 0.99):
        with pytest.raises(DataError, match=f"validation: {wrong} holds out"):
            hold_out((0, 10), wrong, 1)


def sources(
    two: tuple[Corpus, Corpus], tmp_path: Path, weights: tuple[float, float] = (1.0, 1.0), **keys: object
) -> Sources:
    stage = PretrainStage.model_validate({"task": "pretrain", "max_steps": 1, "max_length": 64, **keys})
    words = [f"w{number}" for number in range(500)]
    facts: list[CorpusFacts] = [
        {"title": "", "kind": "corpus", "entry": str(each.path), "weight": weight, "documents": 0, "left_out": 0}
        for each, weight in zip(two, weights, strict=True)
    ]
    return open_sources("pretrain", stage, facts, make_vocabulary(tmp_path, words), 9)


def drawn(epoch: object) -> DrawnEpoch:
    assert isinstance(epoch, DrawnEpoch)
    return epoch


@pytest.mark.parametrize("keys", [{}, {"nsp": False}, {"nsp": False, "packing": True}, {"single_sentences": "alone"}])
def test_training_and_held_out_documents_share_no_token(
    two: tuple[Corpus, Corpus], tmp_path: Path, keys: dict[str, Any]
) -> None:
    made = sources(two, tmp_path, validation=9, **keys)
    assert made.num_held_out == 9
    used = []
    for source in filter(None, (made.training, made.held_out)):
        plan = drawn(source.epoch(0)).plan
        names = ("starts_a", "starts_b") if isinstance(plan, InstancePlan) else ("starts",)
        used.append({int(start) for name in names for start in getattr(plan, name)[getattr(plan, name) > 0]})
    documents = join_corpora(two, (1.0, 1.0))
    starts = documents.sentence_offsets[documents.firsts]
    trained, held = ({int(np.searchsorted(starts, at, side="right")) for at in part} for part in used)
    assert held
    assert not trained & held


def test_static_draws_repeat_in_every_epoch_and_differ_between_passes(
    two: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    first = drawn(sources(two, tmp_path, dupe_factor=3).training.epoch(0))
    later = drawn(sources(two, tmp_path, dupe_factor=3).training.epoch(5))  # a run that resumes in epoch 5
    single = [drawn(sources(two, tmp_path).training.epoch(number)) for number in range(3)]
    assert len(first.lengths) == sum(len(each.lengths) for each in single), "an epoch is all passes"
    assert first.lengths.tolist() == [length for each in single for length in each.lengths.tolist()]
    items = np.array([0, len(single[0].lengths), len(first.lengths) - 1])
    for one, other in zip(first.masked(items), later.masked(items), strict=True):
        assert np.array_equal(one, other)
    other_epoch = drawn(sources(two, tmp_path).training.epoch(5))
    assert not np.array_equal(other_epoch.masked(np.arange(20)).ids, first.masked(np.arange(20)).ids)
    whole = sources(
        (two[0], two[0]), tmp_path, weights=(1.0, 1.0), dupe_factor=2, nsp=False, short_sequence_probability=0.0
    )
    plan = drawn(whole.training.epoch(0))
    size = len(plan.lengths) // 2
    draw, again = plan.masked(np.arange(10)), plan.masked(np.arange(10) + size)
    assert np.array_equal(draw.offsets, again.offsets), (
        "without randomness in the stretches the passes have the same text"
    )
    assert not np.array_equal(draw.positions, again.positions), "and masks of their own"


def test_a_weight_that_takes_no_document_is_refused(two: tuple[Corpus, Corpus], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"corpora\[1\].weight: 0.03 of 25 documents is less than one"):
        sources(two, tmp_path, weights=(1.0, 0.03))


def test_alone_a_single_sentence_has_no_pair_and_all_of_its_room(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(300)]
    long, short = " ".join(words[:200]), " ".join(words[:5])
    corpus = make_corpus(tmp_path, [[long], [short], [short, short, short]], words)
    pairs = 0
    for epoch in range(40):
        plan = plan_epoch(join_corpora([corpus], (1.0,)), Recipe(64, 0.0, nsp=True, alone=True), 1, epoch)
        ids, types, offsets, labels = plan.gather(np.arange(len(plan)))
        assert plan.lengths.tolist() == np.diff(offsets).tolist()
        assert (plan.lengths_a[0], plan.lengths_b[0], plan.lengths[0]) == (62, 0, 64)
        assert ids[:64].tolist() == [corpus.cls_id, *corpus.ids[plan.starts_a[0] :][:62].tolist(), corpus.sep_id]
        assert plan.lengths[1] == 7
        assert (labels[:2] == NO_NEXT).all()
        assert types[: offsets[2]].max() == 0
        single = plan.lengths_b == 0
        assert np.array_equal(single, labels == NO_NEXT)
        pairs += int((~single).sum())
    assert pairs >= 40
