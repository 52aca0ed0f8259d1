"""The documents of one or several corpora in one numbering, and which of them an epoch passes over."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np

from configs.errors import DataError
from trainers.data.random_bits import Purpose, permutation
from trainers.data.split import subset_rows
from trainers.data.store import Corpus

_CORPUS_BITS = 16
"""Room for the corpus number in the key of a permutation."""


class TokenIds(Protocol):
    """Flat token ids of which ranges are taken."""

    def __getitem__(self, tokens: slice) -> np.ndarray: ...


class JoinedIds:
    """The token ids of several corpora as one sequence. A range lies within one of them: that of a document."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._bases = [0, *np.cumsum([len(part) for part in parts]).tolist()]

    def __getitem__(self, tokens: slice) -> np.ndarray:
        number = bisect_right(self._bases, tokens.start) - 1
        base = self._bases[number]
        found: np.ndarray = self._parts[number][tokens.start - base : tokens.stop - base]
        return found


@dataclass(frozen=True)
class Documents:
    """Documents as ranges of sentences, and sentences as ranges of token ids."""

    ids: TokenIds
    sentence_offsets: np.ndarray
    """Where sentences start in `ids`, and where the last one ends: int64."""
    firsts: np.ndarray
    """First sentence of each document: int64 [documents]."""
    stops: np.ndarray
    """The sentence behind its last one: int64 [documents]."""
    bounds: tuple[int, ...]
    """Where the documents of each corpus begin, and the number of all."""
    weights: tuple[float, ...]
    """Passes over each corpus per epoch."""
    cls_id: int
    sep_id: int
    what: str = "corpus"
    """What the documents are, for messages."""

    def __len__(self) -> int:
        return len(self.firsts)

    def subset(self, rows: np.ndarray, what: str, weights: tuple[float, ...]) -> Documents:
        """Some of the documents (ascending numbers), numbered anew."""
        bounds = tuple(np.searchsorted(rows, self.bounds).tolist())
        return replace(
            self, firsts=self.firsts[rows], stops=self.stops[rows], bounds=bounds, weights=weights, what=what
        )


def join_corpora(corpora: Sequence[Corpus], weights: Sequence[float]) -> Documents:
    """All documents of the corpora, in order."""
    tokens, sentences, documents = 0, 0, 0
    offsets, firsts, stops, bounds = [], [], [], [0]
    for corpus in corpora:
        offsets.append(corpus.sentence_offsets + tokens if tokens else corpus.sentence_offsets)
        firsts.append(corpus.document_offsets[:-1] + sentences)
        stops.append(corpus.document_offsets[1:] + sentences)
        tokens += corpus.num_tokens
        sentences += len(corpus.sentence_offsets)  # with the end of the last one: an empty sentence of no document
        documents += corpus.num_documents
        bounds.append(documents)
    single = len(corpora) == 1
    return Documents(
        ids=corpora[0].ids if single else JoinedIds([corpus.ids for corpus in corpora]),
        sentence_offsets=offsets[0] if single else np.concatenate(offsets),
        firsts=np.concatenate(firsts),
        stops=np.concatenate(stops),
        bounds=tuple(bounds),
        weights=tuple(weights),
        cls_id=corpora[0].cls_id,
        sep_id=corpora[0].sep_id,
    )


def hold_out(bounds: Sequence[int], validation: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the items to train on, of those held out): int64, ascending; of every corpus its share.

    `bounds`: where the items of each corpus begin, and the number of all. DataError when either part would be empty.
    """
    total = bounds[-1]
    wanted = validation if isinstance(validation, int) else int(total * validation + 0.5)
    if validation and not 0 < wanted < total:
        raise DataError(
            f"validation: {validation} holds out {wanted} of {total}; at least one must be held out and one left",
            "set the stage's validation to a number that fits the corpora",
        )
    corpus_of = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    held_out = subset_rows(corpus_of, wanted, seed) if wanted else np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(total), held_out, assume_unique=True), held_out


def visits(bounds: Sequence[int], weights: Sequence[float], seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """What an epoch passes over: (item numbers, how often each was passed over before in this epoch), int64.

    The passes over a corpus of n items follow one another over the whole training, each in a random order of its own (seed, corpus,
    pass); an epoch takes the next n * weight items of this sequence. So a weight of 2 gives every item twice, and two epochs with a
    weight of 0.5 all of them once, whichever epoch is asked for first.
    """
    items, passes = [], []
    for number, weight in enumerate(weights):
        first, size = bounds[number], bounds[number + 1] - bounds[number]
        share = Fraction(repr(float(weight))) * size
        begin, end = int(epoch * share), int((epoch + 1) * share)
        for each in range(begin // size, -(-end // size)) if size else ():
            low, high = max(begin - each * size, 0), min(end - each * size, size)
            if high - low == size:
                chosen = np.arange(size, dtype=np.int64)
            else:
                key = (each << _CORPUS_BITS) | number
                chosen = np.sort(permutation(size, seed, Purpose.CORPORA, key)[low:high])
            items.append(first + chosen)
            passes.append(np.full(len(chosen), each - begin // size, dtype=np.int64))
    return np.concatenate(items), np.concatenate(passes)
