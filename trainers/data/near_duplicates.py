"""Near-duplicates among texts given as token ids: pairs whose sets of phrases have a Jaccard index of at least 0.8.

A phrase is a run of three tokens; a text of fewer tokens is one phrase. Candidates come from MinHash with banding (Broder 1997; Leskovec
et al., Mining of Massive Datasets, ch. 3): a pair at the threshold is missed with probability (1 - 0.8^4)^16 = 2e-4, one at 0.9 with
4e-8. Every candidate is then compared exactly, so what is found is so. Memory: about 150 bytes per text, and a chunk of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from trainers.data.random_bits import GOLDEN, mix, mix_array
from trainers.data.store import Texts

VERSION = 1
"""Part of the cache key: raise it when other pairs would be found."""
THRESHOLD = 0.8
PHRASE_TOKENS = 3
NUM_BANDS = 16
BAND_ROWS = 4
MAX_NEIGHBOURS = 64
"""A text is compared with at most this many earlier ones of the same band: bounds the work where very many share a template."""
_CHUNK_TOKENS = 1 << 17  # the passes of one chunk stay in the processor's cache
_END = np.uint64((1 << 64) - 1)
_NO_BAND = np.uint32(0)

Advance = Callable[[int], None]


def band_keys(texts: Texts, advance: Advance) -> np.ndarray:
    """uint32 [NUM_BANDS, rows]: texts that agree in a band are candidates. 0 for texts without tokens. `advance` gets rows."""
    keys = np.zeros((NUM_BANDS, len(texts)), dtype=np.uint32)
    for start, stop in _chunks(_row_tokens(texts)):
        phrases, first = _phrases(*flat_tokens(texts, start, stop))
        filled = start + np.flatnonzero(np.diff(np.append(first, len(phrases))))
        first = first[filled - start]
        for band in range(NUM_BANDS):
            if len(first):
                keys[band, filled] = _band(phrases, first, band)
        advance(stop - start)
    return keys


def _band(phrases: np.ndarray, first: np.ndarray, band: int) -> np.ndarray:
    combined = np.zeros(len(first), dtype=np.uint64)
    for number in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
        factor, shift = np.uint64(mix(GOLDEN + number) | 1), np.uint64(mix(GOLDEN - number))
        combined += np.minimum.reduceat(phrases * factor + shift, first)
        mix_array(combined)
    return np.maximum((combined >> np.uint64(32)).astype(np.uint32), np.uint32(1))


def candidate_pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(earlier items, later items), int64 arrays of equal length, of pairs that agree in a band.

    Within one of these arrays no later item stands twice, so that the caller can pass over those that need no further comparison. A
    pair comes once for every band that it agrees in.
    """
    for band in keys:
        order = np.argsort(band, kind="stable")
        order = order[np.searchsorted(band[order], _NO_BAND, side="right") :]
        values = band[order]
        for distance in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
            same = np.flatnonzero(values[distance:] == values[:-distance])
            if len(same) == 0:
                break
            # the sort is stable, so the one further on is the later item
            yield order[same], order[same + distance]


class Phrases:
    """The phrase set of single texts; the latest are kept."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, row: int) -> np.ndarray:
        """Sorted, each once: uint64."""
        if row not in self._kept:
            if len(self._kept) >= 4096:
                self._kept.clear()
            self._kept[row] = np.unique(_phrases(*flat_tokens(self._texts, row, row + 1))[0])
        return self._kept[row]


def are_near(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two phrase sets have a Jaccard index of at least THRESHOLD."""
    if min(len(a), len(b)) < THRESHOLD * max(len(a), len(b)):
        return False
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common >= THRESHOLD * (len(a) + len(b) - common)


def flat_tokens(texts: Texts, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """(token ids + 1 of the rows start..stop-1 one after another as uint64, tokens of each); a 0 stands between text and pair."""
    ids, lengths = texts.run(start, stop)
    ids = ids.astype(np.uint64) + np.uint64(1)
    pair = texts.pair_run(start, stop)
    if pair is None:
        return ids, lengths
    pair_ids, pair_lengths = pair
    total = lengths + 1 + pair_lengths
    begins = np.cumsum(total) - total
    flat = np.zeros(int(total.sum()), dtype=np.uint64)
    flat[_places(begins, lengths)] = ids
    flat[_places(begins + lengths + 1, pair_lengths)] = pair_ids.astype(np.uint64) + np.uint64(1)
    return flat, total


def _places(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The positions begin, begin + 1, ... of every run, one run after another."""
    before = np.cumsum(lengths) - lengths
    places: np.ndarray = np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))
    return places


def _phrases(ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hash of every phrase, row after row; where each row's begin). A row of one or two tokens is one phrase."""
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(len(ids))  # tokens from here to the row's end
    hashes = ids.copy()
    for offset in range(1, PHRASE_TOKENS):
        following = np.full(len(ids), _END)
        inside = left[: len(ids) - offset] > offset if offset < len(ids) else np.zeros(0, dtype=bool)
        following[: len(inside)][inside] = ids[offset:][inside]
        hashes = mix_array(hashes * np.uint64(GOLDEN) + following)
    is_first = left == np.repeat(lengths, lengths)
    kept = (left >= PHRASE_TOKENS) | is_first
    counts = np.where(lengths > 0, np.maximum(lengths - PHRASE_TOKENS + 1, 1), 0)
    return hashes[kept], np.cumsum(counts) - counts


def _row_tokens(texts: Texts) -> np.ndarray:
    return texts.lengths if texts.pair_lengths is None else texts.lengths + texts.pair_lengths


def _chunks(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of rows of about _CHUNK_TOKENS tokens, at least one row each."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK_TOKENS)))
        yield start, stop
        start = stop
