"""A batch is a set of token sequences with lengths, laid end to end: no padded rectangle.

Shape legend: T tokens of all sequences, B sequences, D texts (fewer than B where texts are cut into fractions),
S longest sequence, H hidden size, A attention heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import paddle


class Noise(Protocol):
    """Random decisions that belong to sequences, not to ranks (dropout.py)."""

    def rows(self, sizes: Sequence[int], width: int, threshold: int) -> np.ndarray: ...

    def squares(self, sizes: Sequence[int], heads: int, longest: int, threshold: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Layout:
    """Where each sequence lies in the flat token axis, and how attention sees it as a rectangle."""

    lengths: tuple[int, ...]
    """Tokens of each sequence."""
    max_length: int
    first_T: paddle.Tensor
    """[B] int64: flat index of each sequence's first token ([CLS])."""
    rectangle_BS: paddle.Tensor | None
    """[B*S] int64: flat token of every cell (padding repeats token 0, and is masked); None when all lengths are equal."""
    flat_T: paddle.Tensor | None
    """[T] int64: cell of every token; None when all lengths are equal."""
    key_mask_BS: paddle.Tensor | None
    """[B, 1, S] float32: 0 for tokens, MASKED for padding, added to scores; None when all lengths are equal."""
    noise: Noise | None = None
    """Source of dropout; None: the device's own generator."""

    @property
    def num_sequences(self) -> int:
        return len(self.lengths)

    @property
    def num_cells(self) -> int:
        """Cells of the attention rectangle, padding included."""
        return len(self.lengths) * self.max_length


MASKED = -1e4
"""Added to the score of a padded key: exp(MASKED) is exactly 0 in float32, and the value exists in float16."""


def make_layout(lengths: Sequence[int], noise: Noise | None = None) -> Layout:
    """Layout of sequences of the given lengths in tokens (each at least 1)."""
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    longest = int(sizes.max())
    first = paddle.to_tensor(starts)
    if int(sizes.min()) == longest:
        return Layout(tuple(lengths), longest, first, None, None, None, noise)
    columns = np.arange(longest)
    inside = columns[None, :] < sizes[:, None]
    cells = np.where(inside, starts[:, None] + columns[None, :], 0)
    flat = np.flatnonzero(inside)
    mask = np.where(inside, 0.0, MASKED).astype(np.float32)[:, None, :]
    return Layout(
        tuple(lengths),
        longest,
        first,
        paddle.to_tensor(cells.reshape(-1)),
        paddle.to_tensor(flat),
        paddle.to_tensor(mask),
        noise,
    )


@dataclass(frozen=True)
class TokenBatch:
    """Token sequences of one micro-step on one rank."""

    ids_T: paddle.Tensor
    """[T] int64 token ids."""
    types_T: paddle.Tensor
    """[T] int64 token types (0: first text, 1: second)."""
    positions_T: paddle.Tensor
    """[T] int64 position in the own sequence."""
    layout: Layout
    fractions: Layout | None = None
    """Where the sequences of each text lie in the axis of sequences; None: every sequence is a text of its own."""

    @property
    def num_texts(self) -> int:
        return self.layout.num_sequences if self.fractions is None else self.fractions.num_sequences

    @property
    def num_tokens(self) -> int:
        return int(self.ids_T.shape[0])


def flat_token_batch(
    ids: np.ndarray, types: np.ndarray, lengths: Sequence[int], noise: Noise | None = None
) -> TokenBatch:
    """Batch of sequences that already lie end to end: `ids` and `types` [T], `lengths` [B], each at least 1."""
    return TokenBatch(
        paddle.to_tensor(ids.astype(np.int64)),
        paddle.to_tensor(types.astype(np.int64)),
        paddle.to_tensor(np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])),
        make_layout(lengths, noise),
    )


def make_token_batch(ids: Sequence[np.ndarray], types: Sequence[np.ndarray], noise: Noise | None = None) -> TokenBatch:
    """Lay sequences end to end. `ids[i]` and `types[i]` are 1-d arrays of the same length, at least 1."""
    return flat_token_batch(np.concatenate(ids), np.concatenate(types), [len(row) for row in ids], noise)


def make_text_batch(texts: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], noise: Noise | None = None) -> TokenBatch:
    """Lay the sequences (ids, types) of texts end to end, each text with all its fractions."""
    sequences = [sequence for text in texts for sequence in text]
    batch = make_token_batch([ids for ids, _ in sequences], [types for _, types in sequences], noise)
    if len(sequences) == len(texts):
        return batch
    return replace(batch, fractions=make_layout([len(text) for text in texts]))
