"""Cutting token sequences to a length, and adding the special tokens (Sun et al. 2019, section 5.1)."""

from __future__ import annotations

import numpy as np


def truncate_single(ids: np.ndarray, max_length: int, head: int | None, tail: int | None) -> np.ndarray:
    """Keep L = max_length - 2 tokens of a single text.

    Neither given: the first L. `head` = k: the first k and the last L - k. `tail` = k: the last k and the first L - k.
    Texts of at most L tokens stay whole.
    """
    room = max_length - 2
    if len(ids) <= room:
        return ids
    if head is not None:
        first = head
    elif tail is not None:
        first = room - tail
    else:
        first = room
    if first == room:
        return ids[:room]
    return np.concatenate([ids[:first], ids[len(ids) - (room - first) :]])


def truncate_pair(a: np.ndarray, b: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Drop tokens from the end of the longer text, one by one, until both fit in max_length - 3; of equal texts, the second loses."""
    kept_a, kept_b = pair_lengths(len(a), len(b), max_length - 3)
    return a[:kept_a], b[:kept_b]


def pair_lengths(length_a: int, length_b: int, room: int) -> tuple[int, int]:
    """What dropping single tokens from the longer of two texts (the second, when equal) leaves of each, to fit in `room`."""
    if length_a + length_b <= room:
        return length_a, length_b
    half = room // 2
    if length_b <= half:
        return room - length_b, length_b
    if length_a <= room - half:
        return length_a, room - length_a
    return room - half, half


def assemble(a: np.ndarray, b: np.ndarray | None, cls_id: int, sep_id: int) -> tuple[np.ndarray, np.ndarray]:
    """([CLS] a [SEP] or [CLS] a [SEP] b [SEP] as int32, token types as uint8: 0 up to the first [SEP], 1 after it)."""
    num_first = len(a) + 2
    num_all = num_first if b is None else num_first + len(b) + 1
    ids = np.empty(num_all, dtype=np.int32)
    ids[0] = cls_id
    ids[1 : num_first - 1] = a
    ids[num_first - 1] = sep_id
    token_types = np.zeros(num_all, dtype=np.uint8)
    if b is not None:
        ids[num_first:-1] = b
        ids[-1] = sep_id
        token_types[num_first:] = 1
    return ids, token_types
