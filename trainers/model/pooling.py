"""From many vectors to one: over the fractions of a text, or over the tokens of a sequence.

Vectors lie end to end and a Layout says whose they are. Shape legend: batch.py; N vectors of all groups, G groups, S largest group,
W width.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from trainers.model.batch import Layout, TokenBatch, make_layout
from trainers.model.config import BertConfig
from trainers.model.encoder import linear, normal


def to_cells(x_NW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """[N, W] -> [G, S, W]; the padding repeats vector 0."""
    cells = x_NW if layout.rectangle_BS is None else paddle.gather(x_NW, layout.rectangle_BS)
    return cells.reshape([layout.num_sequences, layout.max_length, x_NW.shape[1]])


def from_cells(x_GSW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """[G, S, W] -> [N, W], without the padding."""
    flat = x_GSW.reshape([-1, x_GSW.shape[2]])
    return flat if layout.flat_T is None else paddle.gather(flat, layout.flat_T)


def mean_pool(x_NW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """[G, W]: the mean of each group."""
    cells_GSW = to_cells(x_NW, layout)
    if layout.key_mask_BS is None:
        return cells_GSW.mean(axis=1)
    inside_GS1 = (layout.key_mask_BS == 0.0).astype(x_NW.dtype).transpose([0, 2, 1])
    return (cells_GSW * inside_GS1).sum(axis=1) / inside_GS1.sum(axis=1)


def max_pool(x_NW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """[G, W]: the largest value of each feature in each group."""
    if layout.key_mask_BS is None:
        return to_cells(x_NW, layout).max(axis=1)
    mask_GS1 = layout.key_mask_BS.astype(x_NW.dtype).transpose([0, 2, 1])
    return (to_cells(x_NW, layout) + mask_GS1).max(axis=1)


class AttentionPooling(nn.Layer):
    """A learned mean: weights softmax(w . tanh(W h + b)) over the vectors h of a group.

    The form of Yang et al. 2016 (Hierarchical Attention Networks, equations 5 to 7); Lin et al. 2017 (self-attentive sentence
    embedding) is the same with one hop and without b.
    """

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.dense = linear(config, width, width)
        self.context = self.create_parameter([width, 1], attr=normal(config))

    def weights(self, x_NW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[G, 1, S]: what each vector of a group counts; 0 in the padding."""
        scores_N1 = paddle.matmul(paddle.tanh(self.dense(x_NW)), self.context)
        scores_G1S = to_cells(scores_N1, layout).transpose([0, 2, 1])
        if layout.key_mask_BS is not None:
            scores_G1S = scores_G1S + layout.key_mask_BS.astype(scores_G1S.dtype)
        return F.softmax(scores_G1S)

    def forward(self, x_NW: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[N, W] -> [G, W]."""
        return paddle.bmm(self.weights(x_NW, layout), to_cells(x_NW, layout)).squeeze(1)


class FractionPooling(nn.Layer):
    """Combines the feature vectors of a text's fractions by mean, max or self-attention (Sun et al. 2019, section 5.1)."""

    def __init__(self, config: BertConfig, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.attention = AttentionPooling(config, width)

    def forward(self, x_BW: paddle.Tensor, batch: TokenBatch) -> paddle.Tensor:
        """[B, W] -> [D, W]."""
        if self.kind == "attention":
            # also where every text is one fraction: all ranks must have the same gradients to sum
            pooled: paddle.Tensor = self.attention(x_BW, batch.fractions or make_layout([1] * batch.num_texts))
            return pooled
        if batch.fractions is None:
            return x_BW
        return (mean_pool if self.kind == "mean" else max_pool)(x_BW, batch.fractions)
