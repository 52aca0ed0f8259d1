"""Dynamic masking for the masked language model: which tokens are predicted and what stands in their place.

Every choice is a hash of (seed, epoch, instance id, position), computed for many instances at once; an instance is masked
in the same way whatever else is in the batch. 15 % (`probability`) of an instance's non-special tokens are chosen, rounded to
the nearest, at least 1 and at most `max_predictions`; of the chosen, 80 % become [MASK], 10 % stay, 10 % become any entry of
the vocabulary (as in Google's code, special ones included).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.data.random_bits import GOLDEN, Purpose, item_keys, mix_array, stream_key

_POSITION_BITS = 13  # sequences are below 2^13 tokens
_INSTANCE_BITS = 19
_RANDOM_BITS = 64 - _INSTANCE_BITS - _POSITION_BITS
_SECOND_STREAM = 1 << 32  # draws of what to put in place, apart from the draws of what to choose
MASK_SHARE = 0.8
KEEP_SHARE = 0.1


@dataclass(frozen=True)
class Masking:
    """How to mask: the same for all instances of a stage."""

    special_ids: tuple[int, ...]
    """Ids that are never predicted."""
    vocab_size: int
    mask_id: int
    probability: float
    max_predictions: int
    whole_word: bool
    is_continuation: np.ndarray
    """bool [vocabulary]: entries that continue a word; used with whole_word."""


def mask_tokens(
    ids: np.ndarray,
    *,
    rng_key: tuple[int, int, int],
    special_ids: tuple[int, ...],
    vocab_size: int,
    mask_id: int,
    probability: float,
    max_predictions: int,
    whole_word: bool,
    is_continuation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask one instance: (masked ids int32 [tokens], positions int32 [predictions], ascending, true ids there int32 [predictions]).

    `rng_key` is (seed, epoch, instance id).
    """
    seed, epoch, instance = rng_key
    masking = Masking(special_ids, vocab_size, mask_id, probability, max_predictions, whole_word, is_continuation)
    offsets = np.array([0, len(ids)], dtype=np.int64)
    masked, positions, labels, _ = mask_batch(ids, offsets, np.array([instance]), seed, epoch, masking)
    return masked, positions, labels


def mask_batch(
    ids: np.ndarray, offsets: np.ndarray, instances: np.ndarray, seed: int, epoch: int, masking: Masking
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mask instances that lie one after another in `ids` [tokens]; instance k is ids[offsets[k]:offsets[k+1]] and has id instances[k].

    Returns (masked ids int32 [tokens], flat positions int32 [predictions] ascending, true ids there int32 [predictions],
    predictions per instance int32 [instances]).
    """
    lengths = np.diff(offsets)
    if len(lengths) >= 1 << _INSTANCE_BITS or (len(lengths) and int(lengths.max()) >= 1 << _POSITION_BITS):
        raise ValueError(f"at most {1 << _INSTANCE_BITS} instances of {1 << _POSITION_BITS} tokens at once")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    keys = item_keys(stream_key(seed, Purpose.MASKING, epoch), np.asarray(instances))
    within = np.arange(len(ids)) - offsets[owner]
    is_candidate = ~_special_table(masking)[ids]
    candidates = np.flatnonzero(is_candidate)
    owner, within = owner[candidates], within[candidates]
    counts = np.bincount(owner, minlength=len(lengths))
    budgets = np.clip(np.floor(counts * masking.probability + 0.5).astype(np.int64), 1, masking.max_predictions)
    budgets = np.minimum(budgets, counts)
    choose = _choose_words if masking.whole_word else _choose_tokens
    chosen = choose(ids, candidates, owner, within, keys, counts, budgets, masking)
    positions = candidates[chosen]
    labels = ids[positions].astype(np.int32)
    masked = ids.astype(np.int32)
    draws = _draw(keys, owner[chosen], within[chosen] + _SECOND_STREAM)
    masked[positions] = _replacements(labels, draws, masking)
    per_instance = np.bincount(owner[chosen], minlength=len(lengths)).astype(np.int32)
    return masked, positions.astype(np.int32), labels, per_instance


def _special_table(masking: Masking) -> np.ndarray:
    table = np.zeros(masking.vocab_size, dtype=bool)
    table[list(masking.special_ids)] = True
    return table


def _draw(keys: np.ndarray, owner: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Word number `counter` of the streams of the instances `owner`: uint64."""
    values = (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
    values += keys[owner]
    return mix_array(values)


def _choose_tokens(
    ids: np.ndarray,
    candidates: np.ndarray,
    owner: np.ndarray,
    within: np.ndarray,
    keys: np.ndarray,
    counts: np.ndarray,
    budgets: np.ndarray,
    masking: Masking,
) -> np.ndarray:
    """Indices into `candidates` (ascending): in every instance those with the smallest draws, as many as its budget."""
    if len(candidates) == 0:
        return candidates
    starts = np.cumsum(counts) - counts
    order = (owner.astype(np.uint64) << np.uint64(_RANDOM_BITS + _POSITION_BITS)) | (
        (_draw(keys, owner, within) >> np.uint64(64 - _RANDOM_BITS)) << np.uint64(_POSITION_BITS)
    )
    order |= (np.arange(len(candidates)) - starts[owner]).astype(np.uint64)
    order.sort()  # plain numbers sort much faster than an argsort of keys; the position rides in the low bits
    taken = np.arange(len(candidates)) - starts[owner] < budgets[owner]
    rank = (order[taken] & np.uint64((1 << _POSITION_BITS) - 1)).astype(np.int64)
    return np.sort(rank + starts[owner[taken]])


def _choose_words(
    ids: np.ndarray,
    candidates: np.ndarray,
    owner: np.ndarray,
    within: np.ndarray,
    keys: np.ndarray,
    counts: np.ndarray,
    budgets: np.ndarray,
    masking: Masking,
) -> np.ndarray:
    """The same for whole words: in random order each word that still fits the budget, all its pieces.

    A word is a token and the continuation pieces behind it. An instance whose words are all longer than the budget gets none by
    this rule, so its first word in random order is taken as far as the budget goes.
    """
    continues = masking.is_continuation[ids[candidates]]
    starts_word = ~continues
    starts_word[1:] |= (np.diff(candidates) != 1) | (np.diff(owner) != 0)
    starts_word[:1] = True
    first = np.flatnonzero(starts_word)
    sizes = np.diff(np.append(first, len(candidates)))
    word_owner = owner[first]
    draws = _draw(keys, word_owner, within[first])
    order = np.lexsort((draws, word_owner))
    left = budgets.tolist()
    full = budgets.tolist()
    chosen: list[int] = []
    fallback: dict[int, int] = {}
    for instance, start, size in zip(
        word_owner[order].tolist(), first[order].tolist(), sizes[order].tolist(), strict=True
    ):
        fallback.setdefault(instance, start)
        if size <= left[instance]:
            left[instance] -= size
            chosen.extend(range(start, start + size))
    for instance, start in fallback.items():
        if left[instance] == full[instance]:
            chosen.extend(range(start, start + full[instance]))
    return np.sort(np.array(chosen, dtype=np.int64))


def _replacements(labels: np.ndarray, draws: np.ndarray, masking: Masking) -> np.ndarray:
    """What stands at the chosen positions: the upper 32 bits of a draw choose the kind, the lower 32 the random entry."""
    kind = (draws >> np.uint64(32)).astype(np.float64) / 4294967296.0
    entry = ((draws & np.uint64(0xFFFFFFFF)) * np.uint64(masking.vocab_size)) >> np.uint64(32)
    kept = np.where(kind < MASK_SHARE + KEEP_SHARE, labels, entry.astype(np.int32))
    return np.where(kind < MASK_SHARE, masking.mask_id, kept).astype(np.int32)
