"""Pre-training instances from a corpus: Google's recipe (Devlin et al. 2019, `create_pretraining_data.py`) as a pure function.

Every random choice comes from the stream of (seed, epoch, document), so any rank gets the same plan, and masking is left to
`masking.py`. The plan only says which token ranges an instance is made of; its sequences are put together when they are asked for.
The loop over documents works on plain Python integers: no numpy call per sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError
from trainers.data.random_bits import GOLDEN, MASK64, Purpose, item_key, mix, stream_key
from trainers.data.store import Corpus
from trainers.data.truncate import pair_lengths

MIN_TARGET_TOKENS = 2


@dataclass(frozen=True)
class InstancePlan:
    """Every instance of one epoch as ranges of the corpus' flat token ids. Arrays are [instances]."""

    ids: np.ndarray
    starts_a: np.ndarray
    """First token of A: int64."""
    lengths_a: np.ndarray
    """Tokens of A: int32."""
    starts_b: np.ndarray
    """First token of B: int64; any value where B is empty."""
    lengths_b: np.ndarray
    """Tokens of B: int32; 0 for instances without a second part."""
    is_random_next: np.ndarray
    """Whether B comes from another document: bool."""
    cls_id: int
    sep_id: int

    def __len__(self) -> int:
        return len(self.starts_a)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each instance after truncation, special tokens included: int64."""
        total: np.ndarray = self.lengths_a.astype(np.int64) + self.lengths_b + 2 + (self.lengths_b > 0)
        return total

    def instance(self, i: int) -> tuple[np.ndarray, np.ndarray, int]:
        """(token ids int32 [tokens], token types uint8 [tokens], next-sentence label: 0 follows, 1 random)."""
        ids, token_types, _, labels = self.gather(np.array([i]))
        return ids, token_types, int(labels[0])

    def gather(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Several instances without padding, one after another.

        Returns (token ids int32 [all tokens], token types uint8 [all tokens], offsets int64 [items + 1] of the instances,
        next-sentence labels int32 [items]).
        """
        length_a = self.lengths_a[items].astype(np.int64)
        length_b = self.lengths_b[items].astype(np.int64)
        has_b = length_b > 0
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(length_a + length_b + 2 + has_b)])
        begin = offsets[:-1]
        ids = np.empty(int(offsets[-1]), dtype=np.int32)
        token_types = np.zeros(len(ids), dtype=np.uint8)
        ids[begin] = self.cls_id
        first_sep = begin + 1 + length_a
        ids[first_sep] = self.sep_id
        ids[offsets[1:] - 1] = self.sep_id
        corpus = self.ids
        places = zip(begin.tolist(), first_sep.tolist(), offsets[1:].tolist(), has_b.tolist(), strict=True)
        sources = zip(
            self.starts_a[items].tolist(),
            length_a.tolist(),
            self.starts_b[items].tolist(),
            length_b.tolist(),
            strict=True,
        )
        for (first, middle, end, paired), (start_a, num_a, start_b, num_b) in zip(places, sources, strict=True):
            ids[first + 1 : middle] = corpus[start_a : start_a + num_a]
            if paired:
                ids[middle + 1 : end - 1] = corpus[start_b : start_b + num_b]
                token_types[middle + 1 : end] = 1
        return ids, token_types, offsets, self.is_random_next[items].astype(np.int32)


def plan_epoch(
    corpus: Corpus,
    *,
    seed: int,
    epoch: int,
    max_length: int,
    short_sequence_probability: float,
    nsp: bool,
) -> InstancePlan:
    """All instances of one epoch, in the order of the documents (shuffle with `epoch_order`).

    With `nsp`: [CLS] A [SEP] B [SEP], B following A or, with probability 1/2 and always for a single sentence, from a random other
    document. Without: [CLS] text [SEP], contiguous stretches of a document of the target length, each token once. DataError when a corpus
    of one document is to give random pairs.
    """
    if nsp and corpus.num_documents < 2:
        raise DataError(
            f"{corpus.num_documents} document in the corpus: next-sentence prediction needs at least 2",
            "separate documents by blank lines, or set nsp: false",
        )
    key = stream_key(seed, Purpose.INSTANCES, epoch)
    if nsp:
        planner = _PairPlanner(corpus, key, max_length - 3, short_sequence_probability)
        for document in range(corpus.num_documents):
            planner.plan_document(document)
        columns = planner.columns
    else:
        columns = _plan_stretches(corpus, key, max_length - 2, short_sequence_probability)
    return _to_plan(corpus, columns)


Columns = tuple[list[int], list[int], list[int], list[int], list[bool]]
"""Starts of A, tokens of A, starts of B, tokens of B, is random."""


def _to_plan(corpus: Corpus, columns: Columns) -> InstancePlan:
    starts_a, lengths_a, starts_b, lengths_b, is_random = columns
    return InstancePlan(
        ids=corpus.ids,
        starts_a=np.array(starts_a, dtype=np.int64),
        lengths_a=np.array(lengths_a, dtype=np.int32),
        starts_b=np.array(starts_b, dtype=np.int64),
        lengths_b=np.array(lengths_b, dtype=np.int32),
        is_random_next=np.array(is_random, dtype=bool),
        cls_id=corpus.cls_id,
        sep_id=corpus.sep_id,
    )


class _Stream:
    """Random words of one document, in order."""

    __slots__ = ("_state",)

    def __init__(self, key: int, document: int) -> None:
        self._state = item_key(key, document)

    def word(self) -> int:
        """The next 64 random bits."""
        self._state = (self._state + GOLDEN) & MASK64
        return mix(self._state)

    def below(self, bound: int) -> int:
        """A uniform integer in 0..bound-1 (bias below bound / 2^64)."""
        return (self.word() * bound) >> 64

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.word() < probability * 18446744073709551616.0

    def heads(self, tosses: int) -> int:
        """Heads in that many tosses of a fair coin."""
        count = 0
        while tosses > 0:
            count += (self.word() >> max(0, 64 - tosses)).bit_count()
            tosses -= 64
        return count


def _target_length(stream: _Stream, room: int, short_probability: float) -> int:
    """`room` tokens, or with the given probability a uniform number from 2 to `room`."""
    if short_probability > 0 and stream.chance(short_probability):
        return MIN_TARGET_TOKENS + stream.below(room - MIN_TARGET_TOKENS + 1)
    return room


class _PairPlanner:
    """Google's algorithm on sentence offsets. Offsets are absolute, so a run of sentences is one token range."""

    def __init__(self, corpus: Corpus, key: int, room: int, short_probability: float) -> None:
        self._offsets: list[int] = corpus.sentence_offsets.tolist()
        self._documents: list[int] = corpus.document_offsets.tolist()
        self._key = key
        self._room = room
        self._short_probability = short_probability
        self.columns: Columns = ([], [], [], [], [])

    def plan_document(self, document: int) -> None:
        """Append the instances whose A comes from this document."""
        stream = _Stream(self._key, document)
        target = _target_length(stream, self._room, self._short_probability)
        offsets = self._offsets
        first, stop = self._documents[document], self._documents[document + 1]
        while first < stop:
            full = offsets[first] + target
            last = first + 1
            while last < stop and offsets[last] < full:
                last += 1
            num_sentences = last - first
            split = first + 1 + (stream.below(num_sentences - 1) if num_sentences > 1 else 0)
            if num_sentences == 1 or stream.word() & 1:
                start_b, end_b = self._random_text(stream, document, target - (offsets[split] - offsets[first]))
                self._add(stream, offsets[first], offsets[split], start_b, end_b, True)
                first = split  # the sentences that B would have had are put back
            else:
                self._add(stream, offsets[first], offsets[split], offsets[split], offsets[last], False)
                first = last

    def _random_text(self, stream: _Stream, document: int, target: int) -> tuple[int, int]:
        """Token range of sentences of a random other document: from a random sentence on, to `target` tokens or its end."""
        other = stream.below(len(self._documents) - 2)
        other += other >= document
        first, stop = self._documents[other], self._documents[other + 1]
        first += stream.below(stop - first)
        offsets = self._offsets
        full = offsets[first] + target
        last = first + 1
        while last < stop and offsets[last] < full:
            last += 1
        return offsets[first], offsets[last]

    def _add(self, stream: _Stream, start_a: int, end_a: int, start_b: int, end_b: int, is_random: bool) -> None:
        """Append an instance, cut to the room: each token too many is dropped from the longer side, front or back by a coin."""
        length_a, length_b = end_a - start_a, end_b - start_b
        if length_a + length_b > self._room:
            kept_a, kept_b = pair_lengths(length_a, length_b, self._room)
            if kept_a < length_a:
                start_a += stream.heads(length_a - kept_a)
                length_a = kept_a
            if kept_b < length_b:
                start_b += stream.heads(length_b - kept_b)
                length_b = kept_b
        starts_a, lengths_a, starts_b, lengths_b, randoms = self.columns
        starts_a.append(start_a)
        lengths_a.append(length_a)
        starts_b.append(start_b)
        lengths_b.append(length_b)
        randoms.append(is_random)


def _plan_stretches(corpus: Corpus, key: int, room: int, short_probability: float) -> Columns:
    """Stretches of the target length; the last one of a document is what is left."""
    bounds: Sequence[int] = corpus.sentence_offsets[corpus.document_offsets].tolist()
    starts: list[int] = []
    lengths: list[int] = []
    for document in range(corpus.num_documents):
        target = _target_length(_Stream(key, document), room, short_probability)
        end = bounds[document + 1]
        for start in range(bounds[document], end, target):
            starts.append(start)
            lengths.append(min(target, end - start))
    empty = [0] * len(starts)
    return starts, lengths, empty, empty, [False] * len(starts)
