"""Pre-training instances from a corpus: Google's recipe (Devlin et al. 2019, `create_pretraining_data.py`) as a pure function.

Every random choice comes from the stream of (seed, epoch, document), so any rank gets the same plan, and masking is left to
`masking.py`. The plan only says which token ranges an instance is made of; its sequences are put together when they are asked for.
The loop over documents works on plain Python integers: no numpy call per sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.errors import DataError
from trainers.data.documents import Documents, TokenIds, visits
from trainers.data.random_bits import GOLDEN, MASK64, Purpose, item_key, mix, stream_key
from trainers.data.truncate import pair_lengths

MIN_TARGET_TOKENS = 2
NO_NEXT = -1
"""Next-sentence label of an instance without a second part: it is not asked."""
PASS_SHIFT = 40
"""Where the number of the pass stands in the number of a document's stream."""
BLOCK_DOCUMENTS = 1 << 14


@dataclass(frozen=True)
class InstancePlan:
    """Every instance of one epoch as ranges of the corpus' flat token ids. Arrays are [instances]."""

    ids: TokenIds
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
        """(token ids int32 [tokens], token types uint8 [tokens], next-sentence label: 0 follows, 1 random, NO_NEXT without B)."""
        ids, token_types, _, labels = self.gather(np.array([i]))
        return ids, token_types, int(labels[0])

    def gather(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Several instances without padding, one after another.

        Returns (token ids int32 [all tokens], token types uint8 [all tokens], offsets int64 [items + 1] of the instances,
        next-sentence labels int32 [items], NO_NEXT where there is no B).
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
        labels = np.where(has_b, self.is_random_next[items], NO_NEXT).astype(np.int32)
        return ids, token_types, offsets, labels


@dataclass(frozen=True)
class Recipe:
    """How instances are made of documents."""

    max_length: int
    """Most tokens of an instance, special tokens included."""
    short_probability: float
    """Probability of a shorter random target length."""
    nsp: bool
    """Pairs for next-sentence prediction; else single stretches."""
    alone: bool
    """A chunk of one sentence stands alone instead of getting a random second part."""


def plan_epoch(documents: Documents, recipe: Recipe, seed: int, epoch: int) -> InstancePlan:
    """All instances of one epoch, in the order of the documents (shuffle with `epoch_order`).

    With NSP: [CLS] A [SEP] B [SEP], B following A or, with probability 1/2 and for a single sentence, from a random other document.
    Without: [CLS] text [SEP], contiguous stretches of a document of the target length, each token once. DataError when one document is
    to give random pairs.
    """
    if recipe.nsp and len(documents) < 2:
        raise DataError(
            f"{len(documents)} document in the {documents.what}: next-sentence prediction needs at least 2",
            "separate documents by blank lines, or set nsp: false",
        )
    key = stream_key(seed, Purpose.INSTANCES, epoch)
    items, passes = visits(documents.bounds, documents.weights, seed, epoch)
    planner = (_PairPlanner if recipe.nsp else _StretchPlanner)(documents, key, recipe)
    for start in range(0, len(items), BLOCK_DOCUMENTS):
        block = slice(start, start + BLOCK_DOCUMENTS)
        for document, number in zip(items[block].tolist(), passes[block].tolist(), strict=True):
            planner.plan_document(document, number)
        planner.rows.pack()
    return planner.rows.plan(documents)


def join_plans(plans: Sequence[InstancePlan]) -> InstancePlan:
    """The instances of several plans over the same documents, one plan after another."""
    return replace(
        plans[0],
        starts_a=np.concatenate([plan.starts_a for plan in plans]),
        lengths_a=np.concatenate([plan.lengths_a for plan in plans]),
        starts_b=np.concatenate([plan.starts_b for plan in plans]),
        lengths_b=np.concatenate([plan.lengths_b for plan in plans]),
        is_random_next=np.concatenate([plan.is_random_next for plan in plans]),
    )


class _Rows:
    """Instances as they are found: Python numbers, packed into arrays block by block so that memory stays small."""

    def __init__(self) -> None:
        self.starts_a: list[int] = []
        self.lengths_a: list[int] = []
        self.starts_b: list[int] = []
        self.lengths_b: list[int] = []
        self.is_random: list[bool] = []
        self._packed: list[tuple[np.ndarray, ...]] = []

    def pack(self) -> None:
        """Turn what has been found since the last call into arrays."""
        self._packed.append(
            (
                np.array(self.starts_a, dtype=np.int64),
                np.array(self.lengths_a, dtype=np.int32),
                np.array(self.starts_b, dtype=np.int64),
                np.array(self.lengths_b, dtype=np.int32),
                np.array(self.is_random, dtype=bool),
            )
        )
        for column in (self.starts_a, self.lengths_a, self.starts_b, self.lengths_b, self.is_random):
            column.clear()

    def plan(self, documents: Documents) -> InstancePlan:
        """All that has been packed."""
        starts_a, lengths_a, starts_b, lengths_b, is_random = map(np.concatenate, zip(*self._packed, strict=True))
        return InstancePlan(
            documents.ids, starts_a, lengths_a, starts_b, lengths_b, is_random, documents.cls_id, documents.sep_id
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

    def __init__(self, documents: Documents, key: int, recipe: Recipe) -> None:
        self.rows = _Rows()
        self._offsets: list[int] = documents.sentence_offsets.tolist()
        self._firsts: list[int] = documents.firsts.tolist()
        self._stops: list[int] = documents.stops.tolist()
        self._key = key
        self._room = recipe.max_length - 3
        self._short_probability = recipe.short_probability
        self._alone = recipe.alone

    def plan_document(self, document: int, number: int) -> None:
        """Append the instances whose A comes from this document, in its pass number `number` of the epoch."""
        stream = _Stream(self._key, number << PASS_SHIFT | document)
        target = _target_length(stream, self._room, self._short_probability)
        offsets = self._offsets
        first, stop = self._firsts[document], self._stops[document]
        while first < stop:
            full = offsets[first] + target
            last = first + 1
            while last < stop and offsets[last] < full:
                last += 1
            num_sentences = last - first
            if num_sentences == 1 and self._alone:
                self._add_alone(stream, offsets[first], offsets[last])
                first = last
                continue
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
        other = stream.below(len(self._firsts) - 1)
        other += other >= document
        first, stop = self._firsts[other], self._stops[other]
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
        self._append(start_a, length_a, start_b, length_b, is_random)

    def _add_alone(self, stream: _Stream, start: int, end: int) -> None:
        """Append one sentence as [CLS] A [SEP], cut to its room, which has one place more than that of a pair."""
        surplus = max(0, end - start - self._room - 1)
        self._append(start + stream.heads(surplus), end - start - surplus, 0, 0, False)

    def _append(self, start_a: int, length_a: int, start_b: int, length_b: int, is_random: bool) -> None:
        rows = self.rows
        rows.starts_a.append(start_a)
        rows.lengths_a.append(length_a)
        rows.starts_b.append(start_b)
        rows.lengths_b.append(length_b)
        rows.is_random.append(is_random)


class _StretchPlanner:
    """Stretches of the target length; the last one of a document is what is left."""

    def __init__(self, documents: Documents, key: int, recipe: Recipe) -> None:
        self.rows = _Rows()
        self._starts: list[int] = documents.sentence_offsets[documents.firsts].tolist()
        self._ends: list[int] = documents.sentence_offsets[documents.stops].tolist()
        self._key = key
        self._room = recipe.max_length - 2
        self._short_probability = recipe.short_probability

    def plan_document(self, document: int, number: int) -> None:
        """Append the stretches of this document, in its pass number `number` of the epoch."""
        rows, end = self.rows, self._ends[document]
        target = _target_length(
            _Stream(self._key, number << PASS_SHIFT | document), self._room, self._short_probability
        )
        for start in range(self._starts[document], end, target):
            rows.starts_a.append(start)
            rows.lengths_a.append(min(target, end - start))
            rows.starts_b.append(0)
            rows.lengths_b.append(0)
            rows.is_random.append(False)
