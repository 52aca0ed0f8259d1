"""The same classifier over a padded rectangle, for static graphs: input ids and token types [B, S] with any B and S.

Shape legend: trainers/model/batch.py. It shares the parameters of the trained model; tests hold its logits against that model's.
"""

from __future__ import annotations

import math
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn

from trainers.model.batch import MASKED
from trainers.model.heads import BertForClassification


class PaddedClassifier(nn.Layer):
    """Logits [B, C] from ids [B, S] (int64, padded with `pad_id` at the end) and token types [B, S] (int64)."""

    def __init__(self, trained: BertForClassification, pad_id: int) -> None:
        super().__init__()
        self.trained = trained
        self.pad_id = pad_id
        self.blocks = trained.blocks
        self.pooling = trained.pooling

    def forward(self, input_ids: paddle.Tensor, token_type_ids: paddle.Tensor) -> paddle.Tensor:
        padding_BS = (input_ids == self.pad_id).astype("float32")
        mask_B11S = (padding_BS * MASKED).unsqueeze([1, 2])
        x_BSH = self._embed(input_ids, token_type_ids)
        firsts = []
        for layer in self.trained.bert.encoder.layers:
            x_BSH = self._block(layer, x_BSH, mask_B11S)
            firsts.append(x_BSH[:, 0])
        return _linear(self.trained.classifier, self._features(firsts))

    def _embed(self, ids_BS: paddle.Tensor, types_BS: paddle.Tensor) -> paddle.Tensor:
        table = self.trained.bert.embeddings
        positions_S = paddle.arange(paddle.shape(ids_BS)[1], dtype="int64")
        x_BSH = (
            table.word_embeddings(ids_BS)
            + table.position_embeddings(positions_S)
            + table.token_type_embeddings(types_BS)
        )
        embedded: paddle.Tensor = table.layer_norm(x_BSH)
        return embedded

    def _block(self, layer: Any, x_BSH: paddle.Tensor, mask_B11S: paddle.Tensor) -> paddle.Tensor:
        x_BSH = layer.norm1(x_BSH + self._attend(layer.self_attn, x_BSH, mask_B11S))
        fed: paddle.Tensor = layer.norm2(x_BSH + _linear(layer.linear2, F.gelu(_linear(layer.linear1, x_BSH))))
        return fed

    def _attend(self, attention: Any, x_BSH: paddle.Tensor, mask_B11S: paddle.Tensor) -> paddle.Tensor:
        def heads(projection: Any) -> paddle.Tensor:
            split_BSAD = _linear(projection, x_BSH).reshape([0, 0, attention.num_heads, attention.head_size])
            return split_BSAD.transpose([0, 2, 1, 3])

        scale = 1.0 / math.sqrt(attention.head_size)
        scores_BASS = paddle.matmul(heads(attention.q_proj) * scale, heads(attention.k_proj), transpose_y=True)
        mixed_BASD = paddle.matmul(F.softmax(scores_BASS + mask_B11S), heads(attention.v_proj))
        joined_BSH = mixed_BASD.transpose([0, 2, 1, 3]).reshape([0, 0, attention.num_heads * attention.head_size])
        return _linear(attention.out_proj, joined_BSH)

    def _features(self, firsts: list[paddle.Tensor]) -> paddle.Tensor:
        """[B, width]: what the classifier sees, from every block's first token."""
        if self.blocks is None:
            return paddle.tanh(_linear(self.trained.bert.pooler.dense, firsts[-1]))
        chosen = [firsts[block] for block in self.blocks]
        if self.pooling == "concat":
            return paddle.concat(chosen, axis=-1)
        stacked = paddle.stack(chosen)
        return stacked.mean(axis=0) if self.pooling == "mean" else stacked.max(axis=0)


def _linear(layer: Any, x: paddle.Tensor) -> paddle.Tensor:
    """Plain product and bias, whatever faster form the layer uses for training."""
    return F.linear(x, layer.weight, layer.bias)
