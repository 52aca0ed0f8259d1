"""The BERT encoder over flat tokens, with PaddleNLP's parameter names (Devlin et al. 2018; PaddleNLP's BertModel).

Linear layers and LayerNorm see only real tokens; attention sees each sequence. Shape legend: batch.py.
"""

from __future__ import annotations

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from trainers.model.batch import Layout, TokenBatch
from trainers.model.config import BertConfig
from trainers.model.dropout import dropout_attention, dropout_tokens
from trainers.model.linear import Linear


def linear(config: BertConfig, num_in: int, num_out: int) -> Linear:
    """A linear layer with BERT's initialisation: normal(0, initializer_range) weights and zero bias."""
    return Linear(num_in, num_out, weight_attr=normal(config), bias_attr=None)


def normal(config: BertConfig) -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, config.initializer_range))


class Embeddings(nn.Layer):
    """Word + position + token type embeddings, LayerNorm, dropout."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, weight_attr=normal(config))
        self.position_embeddings = nn.Embedding(config.max_positions, size, weight_attr=normal(config))
        self.token_type_embeddings = nn.Embedding(config.num_token_types, size, weight_attr=normal(config))
        self.layer_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.probability = config.hidden_dropout

    def forward(self, batch: TokenBatch) -> paddle.Tensor:
        """[T, H] embedding of every token."""
        x_TH = (
            self.word_embeddings(batch.ids_T)
            + self.position_embeddings(batch.positions_T)
            + self.token_type_embeddings(batch.types_T)
        )
        return dropout_tokens(self.layer_norm(x_TH), self.probability, self.training, batch.layout)


class SelfAttention(nn.Layer):
    """Multi-head self-attention within each sequence: the reference path, on every device and dtype."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.q_proj = linear(config, size, size)
        self.k_proj = linear(config, size, size)
        self.v_proj = linear(config, size, size)
        self.out_proj = linear(config, size, size)
        self.num_heads = config.num_heads
        self.head_size = config.head_size
        self.probability = config.attention_dropout

    def forward(self, x_TH: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[T, H] -> [T, H]."""
        q_XSD = self._split(self.q_proj(x_TH) * (1.0 / math.sqrt(self.head_size)), layout, [0, 2, 1, 3])
        k_XDS = self._split(self.k_proj(x_TH), layout, [0, 2, 3, 1])
        v_XSD = self._split(self.v_proj(x_TH), layout, [0, 2, 1, 3])
        scores_XSS = paddle.bmm(q_XSD, k_XDS)
        if layout.key_mask_BS is not None:
            scores_XSS = self._mask(scores_XSS, layout, layout.key_mask_BS)
        probabilities = dropout_attention(F.softmax(scores_XSS), self.probability, self.training, layout)
        return self.out_proj(self._join(paddle.bmm(probabilities, v_XSD), layout))

    def _split(self, x_TH: paddle.Tensor, layout: Layout, order: list[int]) -> paddle.Tensor:
        """[T, H] -> one matrix per sequence and head, [B*A, S, D] or (transposed) [B*A, D, S], contiguous for bmm."""
        if layout.rectangle_BS is not None:
            x_TH = paddle.gather(x_TH, layout.rectangle_BS)
        x = x_TH.reshape([layout.num_sequences, layout.max_length, self.num_heads, self.head_size]).transpose(order)
        rows = layout.num_sequences * self.num_heads
        return x.reshape([rows, x.shape[2], x.shape[3]])

    def _mask(self, scores_XSS: paddle.Tensor, layout: Layout, key_mask_BS: paddle.Tensor) -> paddle.Tensor:
        sizes = [layout.num_sequences, self.num_heads * layout.max_length, layout.max_length]
        masked = scores_XSS.reshape(sizes) + key_mask_BS.astype(scores_XSS.dtype)
        return masked.reshape(scores_XSS.shape)

    def _join(self, x_XSD: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[B*A, S, D] -> [T, H], real tokens only."""
        sizes = [layout.num_sequences, self.num_heads, layout.max_length, self.head_size]
        cells = x_XSD.reshape(sizes).transpose([0, 2, 1, 3]).reshape([-1, self.num_heads * self.head_size])
        return cells if layout.flat_T is None else paddle.gather(cells, layout.flat_T)


class EncoderLayer(nn.Layer):
    """One post-LayerNorm transformer block."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.linear1 = linear(config, config.hidden_size, config.intermediate_size)
        self.linear2 = linear(config, config.intermediate_size, config.hidden_size)
        self.norm1 = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.probability = config.hidden_dropout

    def forward(self, x_TH: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[T, H] -> [T, H]."""
        attended = dropout_tokens(self.self_attn(x_TH, layout), self.probability, self.training, layout)
        x_TH = self.norm1(x_TH + attended)
        fed = self.linear2(F.gelu(self.linear1(x_TH)))
        fed = dropout_tokens(fed, self.probability, self.training, layout)
        return self.norm2(x_TH + fed)


class Encoder(nn.Layer):
    """The stack of blocks."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layers = nn.LayerList([EncoderLayer(config) for _ in range(config.num_layers)])

    def forward(self, x_TH: paddle.Tensor, layout: Layout) -> list[paddle.Tensor]:
        """States after every block: N tensors [T, H]; entry i is block i (the embedding output is not among them)."""
        states = []
        for layer in self.layers:
            x_TH = layer(x_TH, layout)
            states.append(x_TH)
        return states


class Pooler(nn.Layer):
    """tanh(dense([CLS]))."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = linear(config, config.hidden_size, config.hidden_size)

    def forward(self, cls_BH: paddle.Tensor) -> paddle.Tensor:
        return paddle.tanh(self.dense(cls_BH))


class BertModel(nn.Layer):
    """Embeddings, encoder and (unless switched off) the pooler."""

    def __init__(self, config: BertConfig, with_pooler: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        if with_pooler:
            self.pooler = Pooler(config)

    def forward(self, batch: TokenBatch) -> list[paddle.Tensor]:
        """States after every block: N tensors [T, H]."""
        states: list[paddle.Tensor] = self.encoder(self.embeddings(batch), batch.layout)
        return states


def cls_states(state_TH: paddle.Tensor, layout: Layout) -> paddle.Tensor:
    """[B, H]: the state of every sequence's first token."""
    return paddle.gather(state_TH, layout.first_T)
