"""One number per text that is equal for texts with the same words: to find a text again without keeping it.

Words are compared after Unicode NFKC and case folding; whatever stands between them (spaces, punctuation, symbols) does not count, and
each Chinese or Japanese sign is a word of its own. So the fingerprint of a document given as sentences is that of its running text. A
text without words is the sequence of its signs. Fingerprints have 64 bits: two of 10 million different texts agree with probability 3e-6.

They depend on nothing but the text, are stored beside the tokens of every cache entry, and are compared with `np.isin`.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from trainers.data.random_bits import GOLDEN, mix_array

VERSION = 1
"""Part of the cache keys: raise it when equal texts would get other fingerprints."""
_CHUNK_CHARACTERS = 1 << 20
_STEP = np.uint64(GOLDEN)
_SINGLE_SIGNS = ((0x3040, 0x3100), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20))
_SPACE, _OTHER, _WORD, _SINGLE = range(4)


def fingerprints(texts: Sequence[str]) -> np.ndarray:
    """uint64 [texts]: equal where the words are."""
    parts = [_of_chunk(chunk) for chunk in _chunks(texts)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The folded texts in lists of about a million characters, to bound the memory of what follows."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(_folded(text))
        size += len(chunk[-1])
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)  # folding can bring back what the first pass removed


def _of_chunk(texts: Sequence[str]) -> np.ndarray:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    text_of = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    kinds = _kinds()[codes]
    has_words = np.zeros(len(texts), dtype=bool)
    has_words[text_of[kinds >= _WORD]] = True
    counted = np.flatnonzero((kinds >= _WORD) | ((kinds == _OTHER) & ~has_words[text_of]))
    words, text_of_word = _hash_words(codes, kinds, text_of, counted)
    sums = np.zeros(len(texts), dtype=np.uint64)
    if len(words):
        first = _starts(text_of_word)
        words += _positions(first, len(words)) * _STEP
        sums[text_of_word[first]] = np.add.reduceat(mix_array(words), first)
    return mix_array(sums)


def _hash_words(
    codes: np.ndarray, kinds: np.ndarray, text_of: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(hash of every word, the text it is in); `counted` are the positions of the characters that belong to words."""
    if len(counted) == 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    single = kinds[counted] != _WORD  # in a text without words every sign counts for itself
    begins = np.ones(len(counted), dtype=bool)
    begins[1:] = (np.diff(counted) != 1) | single[1:] | single[:-1]
    begins[1:] |= text_of[counted[1:]] != text_of[counted[:-1]]
    first = np.flatnonzero(begins)
    values = codes[counted].astype(np.uint64) + _positions(first, len(counted)) * _STEP
    words = mix_array(np.add.reduceat(mix_array(values), first))
    return words, text_of[counted[first]]


def _starts(groups: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))


def _positions(first: np.ndarray, total: int) -> np.ndarray:
    """1, 2, 3, ... within each group that starts at `first`, as uint64 [total]."""
    sizes = np.diff(np.append(first, total))
    positions: np.ndarray = np.arange(1, total + 1) - np.repeat(first, sizes)
    return positions.astype(np.uint64)


@functools.cache
def _kinds() -> np.ndarray:
    """For every Unicode character: space, other sign, part of a word (letter, mark, digit), or a word by itself."""
    kinds = np.full(0x110000, _OTHER, dtype=np.uint8)
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category[0] in "LMN":
            kinds[code] = _WORD
        elif category[0] == "Z" or category == "Cc":
            kinds[code] = _SPACE
    for begin, end in _SINGLE_SIGNS:
        block = kinds[begin:end]
        block[block == _WORD] = _SINGLE
    return kinds
