"""Which sample comes when, and which rank computes it: pure functions, so that resuming needs no stored state."""

from __future__ import annotations

import numpy as np

from trainers.data.random_bits import Purpose, permutation


def epoch_order(num: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the samples 0..num-1 in one epoch (int64): a permutation that depends on nothing but its arguments."""
    return permutation(num, seed, Purpose.ORDER, epoch)


def deal(lengths: np.ndarray, world_size: int) -> list[np.ndarray]:
    """Share a global batch out to ranks: the positions (int64, ascending) that each rank gets.

    `lengths` are the tokens of the batch's sequences. Ranks get equally many sequences (the counts differ by at most one, and are zero
    when the batch is smaller than the world) and nearly equal token loads: sequences are dealt from long to short in rounds of
    one per rank, the longest of a round to the rank with the least so far. Ties go to the lower position and the lower rank.
    """
    hands: list[list[int]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    sizes = [int(length) for length in lengths]
    by_length = sorted(range(len(sizes)), key=lambda position: -sizes[position])
    for start in range(0, len(by_length), world_size):
        ranks = sorted(range(world_size), key=lambda rank: loads[rank])
        for position, rank in zip(
            by_length[start : start + world_size], ranks, strict=False
        ):  # the last round is short
            hands[rank].append(position)
            loads[rank] += sizes[position]
    return [np.array(sorted(hand), dtype=np.int64) for hand in hands]


def micro_batches(positions: np.ndarray, lengths: np.ndarray, micro_batch: int | None) -> list[np.ndarray]:
    """Cut a rank's positions into parts of at most `micro_batch` sequences, of similar lengths so that little is padded.

    `lengths` are those of the whole global batch, indexed by position. Longest sequences first, ties by position; an empty hand
    gives no part. None: one part.
    """
    if len(positions) == 0:
        return []
    ordered = positions[np.argsort(-np.asarray(lengths)[positions].astype(np.int64), kind="stable")]
    size = micro_batch or len(ordered)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
