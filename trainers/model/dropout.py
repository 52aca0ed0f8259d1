"""Dropout, in two forms that share one interface.

On CPU the random numbers of a sequence are a pure function of (seed, step, sample id), whichever rank computes it and whatever else is
in its batch: losses agree at any number of ranks, and NumPy's generators are several times faster than Paddle's on CPU. On GPU the
device's own generator is used, reseeded by the loop from (seed, step, micro-step, rank).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F

from trainers.model.batch import Layout, Noise, TokenBatch

_LEVELS = 1 << 16
"""Dropout probabilities are rounded to 1/65536: 16 random bits decide one element."""


class SequenceNoise:
    """One random stream per sequence of a micro-batch."""

    def __init__(self, seed: int, step: int, sample_ids: Sequence[int], fractions: Sequence[int] | None = None) -> None:
        """`sample_ids`: the data set's own numbers of the samples, in batch order; `fractions`: sequences of each, which have streams
        of their own. The first one's is that of a sample of a single sequence."""
        keys = [
            (seed, step, int(sample), part) if part else (seed, step, int(sample))
            for sample, count in zip(sample_ids, fractions or [1] * len(sample_ids), strict=True)
            for part in range(count)
        ]
        self._streams = [np.random.SFC64(np.random.SeedSequence(key)) for key in keys]

    def _draw(self, index: int, count: int, threshold: int) -> np.ndarray:
        words = np.asarray(self._streams[index].random_raw(-(-count // 4)))
        kept: np.ndarray = words.view(np.uint16)[:count] >= threshold
        return kept

    def rows(self, sizes: Sequence[int], width: int, threshold: int) -> np.ndarray:
        """[sum(sizes), width] bool, True where kept; sequence i owns `sizes[i]` consecutive rows."""
        kept: np.ndarray = np.concatenate([self._draw(i, n * width, threshold) for i, n in enumerate(sizes)])
        return kept.reshape(-1, width)

    def squares(self, sizes: Sequence[int], heads: int, longest: int, threshold: int) -> np.ndarray:
        """[B*heads, longest, longest] bool, True where kept (and in padding)."""
        kept = np.ones((len(sizes), heads, longest, longest), dtype=bool)
        for i, n in enumerate(sizes):
            kept[i, :, :n, :n] = self._draw(i, heads * n * n, threshold).reshape(heads, n, n)
        return kept.reshape(-1, longest, longest)


def _apply(x: paddle.Tensor, kept: np.ndarray, threshold: int) -> paddle.Tensor:
    scale = np.float32(_LEVELS / (_LEVELS - threshold))
    return x * paddle.to_tensor(kept * scale).astype(x.dtype)


def _threshold(probability: float) -> int:
    return round(probability * _LEVELS)


def _dropout_rows(
    x: paddle.Tensor, probability: float, training: bool, noise: Noise | None, sizes: Sequence[int]
) -> paddle.Tensor:
    """Dropout on a matrix of which sequence i owns `sizes[i]` consecutive rows."""
    if not training or probability == 0.0:
        return x
    if noise is None:
        return F.dropout(x, probability, training=True)
    threshold = _threshold(probability)
    return _apply(x, noise.rows(sizes, x.shape[1], threshold), threshold)


def dropout_tokens(x_TH: paddle.Tensor, probability: float, training: bool, layout: Layout) -> paddle.Tensor:
    """Dropout on one row per token, [T, H]."""
    return _dropout_rows(x_TH, probability, training, layout.noise, layout.lengths)


def dropout_texts(x_DH: paddle.Tensor, probability: float, training: bool, batch: TokenBatch) -> paddle.Tensor:
    """Dropout on one row per text, [D, H]; a text of several sequences draws from the stream of its first."""
    counts = [1] * batch.num_texts if batch.fractions is None else batch.fractions.lengths
    owned = [int(part == 0) for count in counts for part in range(count)]
    return _dropout_rows(x_DH, probability, training, batch.layout.noise, owned)


def dropout_attention(x_XSS: paddle.Tensor, probability: float, training: bool, layout: Layout) -> paddle.Tensor:
    """Dropout on attention probabilities, [B*A, S, S]."""
    if not training or probability == 0.0:
        return x_XSS
    if layout.noise is None:
        return F.dropout(x_XSS, probability, training=True)
    threshold = _threshold(probability)
    heads = x_XSS.shape[0] // len(layout.lengths)
    return _apply(x_XSS, layout.noise.squares(layout.lengths, heads, layout.max_length, threshold), threshold)
