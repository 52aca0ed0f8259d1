"""Random bits without state: a pure function of (seed, purpose, keys), the same on every rank, machine and numpy version.

Two generators serve two needs. `philox_words` gives one long stream (a permutation of a whole epoch): only Philox's raw output is used,
which numpy keeps stable, not the Generator methods, which it may change. `stream_key` and `mix` are the SplitMix64 generator
(Steele, Lea, Flood 2014), cheap enough for one stream per document or instance; `mix` works on Python integers and `mix_array` on arrays.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


class Purpose(IntEnum):
    """What random bits are for: streams of different purposes are independent."""

    ORDER = 1
    SPLIT = 2
    INSTANCES = 3
    MASKING = 4
    MIXING = 5
    CORPORA = 6
    PACKING = 7


def philox_words(count: int, seed: int, purpose: Purpose, epoch: int = 0) -> np.ndarray:
    """`count` random uint64 words of the stream (seed, purpose, epoch)."""
    key = ((seed & MASK64) << 64) | ((int(purpose) & 0xFFFF) << 48) | (epoch & 0xFFFFFFFFFFFF)
    return np.random.Philox(key=key).random_raw(count)


def permutation(num: int, seed: int, purpose: Purpose, epoch: int = 0) -> np.ndarray:
    """A random order of 0..num-1 (int64): the ranks of random words, ties (2^-64) by position."""
    return np.argsort(philox_words(num, seed, purpose, epoch), kind="stable").astype(np.int64, copy=False)


def mix(value: int) -> int:
    """SplitMix64's finaliser on one integer below 2^64."""
    value = ((value ^ (value >> 30)) * _MIX1) & MASK64
    value = ((value ^ (value >> 27)) * _MIX2) & MASK64
    return value ^ (value >> 31)


def mix_array(values: np.ndarray) -> np.ndarray:
    """`mix` of every element of a uint64 array, in place; returns it."""
    scratch = values >> np.uint64(30)
    values ^= scratch
    values *= np.uint64(_MIX1)
    np.right_shift(values, np.uint64(27), out=scratch)
    values ^= scratch
    values *= np.uint64(_MIX2)
    np.right_shift(values, np.uint64(31), out=scratch)
    values ^= scratch
    return values


def stream_key(seed: int, purpose: Purpose, epoch: int) -> int:
    """Start of all streams of one (seed, purpose, epoch); add an item's id with `item_key`."""
    value = mix((seed + GOLDEN) & MASK64)
    value = mix((value + int(purpose) * GOLDEN) & MASK64)
    return mix((value + (epoch + 1) * GOLDEN) & MASK64)


def item_key(key: int, item: int) -> int:
    """Start of the stream of item number `item`; its n-th word is mix(item_key + n * GOLDEN), n from 1."""
    return mix((key + (item + 1) * GOLDEN) & MASK64)


def item_keys(key: int, items: np.ndarray) -> np.ndarray:
    """`item_key` of every element of an integer array, as uint64."""
    values = (items.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    values += np.uint64(key)
    return mix_array(values)
