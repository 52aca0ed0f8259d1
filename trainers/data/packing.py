"""Packed instances: whole sentences of consecutive documents in one sequence (FULL-SENTENCES of RoBERTa, Liu et al. 2019, section 4.2).

[CLS] d1 [SEP] d2 [SEP] ...: a sequence takes sentences, across documents, until the next one does not fit. A [SEP] ends the text of each
document. A sentence longer than a whole sequence is cut, so no token is lost.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.data.documents import Documents, TokenIds, visits
from trainers.data.instances import NO_NEXT
from trainers.data.random_bits import Purpose, permutation


@dataclass(frozen=True)
class PackedPlan:
    """Every packed instance of one epoch as segments: ranges of flat token ids, each within one document."""

    ids: TokenIds
    starts: np.ndarray
    """First token of each segment: int64 [segments]."""
    segment_lengths: np.ndarray
    """Tokens of each segment: int64 [segments]."""
    first_segments: np.ndarray
    """Where the segments of each instance begin, and the number of all: int64 [instances + 1]."""
    cls_id: int
    sep_id: int

    def __len__(self) -> int:
        return len(self.first_segments) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each instance, special tokens included: int64."""
        until = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.segment_lengths + 1)])
        lengths: np.ndarray = np.diff(until[self.first_segments]) + 1
        return lengths

    def gather(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Several instances without padding, one after another: as InstancePlan.gather, all of token type 0 and without a label."""
        corpus, begins, ends = self.ids, self.first_segments[items].tolist(), self.first_segments[items + 1].tolist()
        parts: list[np.ndarray] = []
        offsets = np.zeros(len(items) + 1, dtype=np.int64)
        cls, sep = np.array([self.cls_id]), np.array([self.sep_id])
        total = 0
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            segments = slice(begin, end)
            parts.append(cls)
            for start, length in zip(
                self.starts[segments].tolist(), self.segment_lengths[segments].tolist(), strict=True
            ):
                parts += (corpus[start : start + length], sep)
                total += length + 1
            total += 1
            offsets[number + 1] = total
        ids = np.concatenate(parts).astype(np.int32)
        return ids, np.zeros(total, dtype=np.uint8), offsets, np.full(len(items), NO_NEXT, dtype=np.int32)


def plan_packed(documents: Documents, max_length: int, seed: int, epoch: int) -> PackedPlan:
    """All packed instances of one epoch; the documents follow each other in a random order of (seed, epoch)."""
    items, _ = visits(documents.bounds, documents.weights, seed, epoch)
    order = items[permutation(len(items), seed, Purpose.PACKING, epoch)]
    packer = _Packer(max_length)
    offsets = array("q", np.ascontiguousarray(documents.sentence_offsets).tobytes())
    for first, stop in zip(documents.firsts[order].tolist(), documents.stops[order].tolist(), strict=True):
        packer.add_document(offsets, first, stop)
    packer.end_instance()
    return PackedPlan(
        documents.ids,
        np.frombuffer(packer.starts, dtype=np.int64),
        np.frombuffer(packer.lengths, dtype=np.int64),
        np.frombuffer(packer.first_segments, dtype=np.int64),
        documents.cls_id,
        documents.sep_id,
    )


def join_packed(plans: Sequence[PackedPlan]) -> PackedPlan:
    """The instances of several plans over the same documents, one plan after another."""
    first_segments = [plans[0].first_segments[:1]]
    for plan in plans:
        first_segments.append(first_segments[-1][-1] + plan.first_segments[1:])
    return PackedPlan(
        plans[0].ids,
        np.concatenate([plan.starts for plan in plans]),
        np.concatenate([plan.segment_lengths for plan in plans]),
        np.concatenate(first_segments),
        plans[0].cls_id,
        plans[0].sep_id,
    )


class _Packer:
    """Lays documents into sequences, first come first served."""

    def __init__(self, max_length: int) -> None:
        self.starts = array("q")
        self.lengths = array("q")
        self.first_segments = array("q", [0])
        self._max_length = max_length
        self._left = max_length - 1  # behind [CLS]

    def add_document(self, offsets: Sequence[int], first: int, stop: int) -> None:
        """Add the sentences `first` to `stop` of a document; they begin a segment of their own."""
        start = offsets[first]
        end = start  # [start, end) is the segment under way, not yet written
        for sentence in range(first, stop):
            until = offsets[sentence + 1]
            if until - start + 1 <= self._left:
                end = until
                continue
            if end > start:
                self._write(start, end)
                start = end
            self.end_instance()
            while until - start + 1 > self._left:  # longer than a whole sequence
                self._write(start, start + self._left - 1)
                start += self._max_length - 2
                self.end_instance()
            end = until
        if end > start:
            self._write(start, end)

    def _write(self, start: int, end: int) -> None:
        self.starts.append(start)
        self.lengths.append(end - start)
        self._left -= end - start + 1

    def end_instance(self) -> None:
        """Close the sequence under way, unless it is empty."""
        if len(self.starts) > self.first_segments[-1]:
            self.first_segments.append(len(self.starts))
            self._left = self._max_length - 1
