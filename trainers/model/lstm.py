"""BERT's token states read by a bidirectional LSTM with self-attention (Sun et al. 2019, table 6: "BERT-Feat").

Shape legend: batch.py; C classes, L = 2 * units of the LSTM.
"""

from __future__ import annotations

import paddle
from paddle import nn

from trainers.model.batch import Layout, TokenBatch
from trainers.model.config import BertConfig
from trainers.model.dropout import dropout_texts
from trainers.model.encoder import BertModel, linear
from trainers.model.pooling import AttentionPooling, from_cells, to_cells


class LstmHead(nn.Layer):
    """Bidirectional LSTM over each sequence, attention pooling over its tokens, dropout, linear."""

    def __init__(self, config: BertConfig, num_classes: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.hidden_size, units, direction="bidirect")
        self.attention = AttentionPooling(config, 2 * units)
        self.output = linear(config, 2 * units, num_classes)
        self.probability = config.hidden_dropout

    def read(self, state_TH: paddle.Tensor, layout: Layout) -> paddle.Tensor:
        """[T, H] -> [T, L]: what both directions know at each token. Computed in float32: Paddle's recurrent kernels have no AMP."""
        lengths_B = paddle.to_tensor(layout.lengths, dtype="int32")
        with paddle.amp.auto_cast(False):
            read_BSL, _ = self.lstm(to_cells(state_TH.astype("float32"), layout), sequence_length=lengths_B)
        return from_cells(read_BSL, layout)

    def forward(self, state_TH: paddle.Tensor, batch: TokenBatch) -> paddle.Tensor:
        """[T, H] -> logits [B, C]."""
        pooled_BL = self.attention(self.read(state_TH, batch.layout), batch.layout)
        logits: paddle.Tensor = self.output(dropout_texts(pooled_BL, self.probability, self.training, batch))
        return logits


class BertWithLstm(nn.Layer):
    """Encoder without pooler, and the LSTM head on its last block."""

    def __init__(self, config: BertConfig, num_classes: int, units: int) -> None:
        super().__init__()
        self.bert = BertModel(config, with_pooler=False)
        self.classifier = LstmHead(config, num_classes, units)

    def forward(self, batch: TokenBatch) -> paddle.Tensor:
        """Logits [B, C]."""
        logits: paddle.Tensor = self.classifier(self.bert(batch)[-1], batch)
        return logits
