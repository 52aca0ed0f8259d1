"""Heads on the encoder: further pre-training (MLM + NSP) and classification, with PaddleNLP's parameter names.

Shape legend: batch.py; M predicted positions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from trainers.model.batch import TokenBatch
from trainers.model.config import BertConfig
from trainers.model.dropout import dropout_texts
from trainers.model.encoder import BertModel, cls_states, linear
from trainers.model.pooling import FractionPooling


class LMPredictionHead(nn.Layer):
    """Dense, GELU, LayerNorm, then a decoder tied to the word embeddings plus a bias; only at predicted positions."""

    def __init__(self, config: BertConfig, word_embeddings: paddle.Tensor) -> None:
        super().__init__()
        self.transform = linear(config, config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.decoder_weight = word_embeddings
        self.decoder_bias = self.create_parameter([config.vocab_size], is_bias=True)

    def forward(self, x_MH: paddle.Tensor) -> paddle.Tensor:
        """[M, H] -> logits [M, V]."""
        x_MH = self.layer_norm(F.gelu(self.transform(x_MH)))
        return paddle.matmul(x_MH, self.decoder_weight, transpose_y=True) + self.decoder_bias


class PretrainingHeads(nn.Layer):
    """Masked-token and next-sentence heads."""

    def __init__(self, config: BertConfig, word_embeddings: paddle.Tensor) -> None:
        super().__init__()
        self.predictions = LMPredictionHead(config, word_embeddings)
        self.seq_relationship = linear(config, config.hidden_size, 2)


class BertForPretraining(nn.Layer):
    """Encoder with both pre-training heads."""

    def __init__(self, config: BertConfig, use_nsp: bool = True) -> None:
        super().__init__()
        self.bert = BertModel(config)
        self.cls = PretrainingHeads(config, self.bert.embeddings.word_embeddings.weight)
        self.use_nsp = use_nsp

    def forward(self, batch: TokenBatch, positions_M: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """MLM logits [M, V] at flat positions `positions_M`, and NSP logits [B, 2] (None without NSP)."""
        last_TH = self.bert(batch)[-1]
        mlm_MV = self.cls.predictions(paddle.gather(last_TH, positions_M))
        if not self.use_nsp:
            return mlm_MV, None
        pooled = self.bert.pooler(cls_states(last_TH, batch.layout))
        return mlm_MV, self.cls.seq_relationship(pooled)


class BertForFeatures(nn.Layer):
    """Encoder, and what a classifier sees of it: the pooler, or the raw [CLS] states of chosen blocks combined by concat, mean or max
    (paper.md section 1), of each text, or of each of its fractions."""

    def __init__(
        self,
        config: BertConfig,
        blocks: Sequence[int] | None = None,
        pooling: str = "concat",
        hierarchical: str | None = None,
    ) -> None:
        """`blocks`: None for the tanh pooler, else 0-based block indices. `hierarchical`: how the features of a text's fractions are
        combined: mean, max or attention; None where every text is one sequence."""
        super().__init__()
        self.blocks = None if blocks is None else tuple(blocks)
        self.pooling = pooling
        self.bert = BertModel(config, with_pooler=blocks is None)
        self.width = config.hidden_size * (len(self.blocks) if self.blocks and pooling == "concat" else 1)
        self.fractions = None if hierarchical is None else FractionPooling(config, hierarchical, self.width)
        self.probability = config.hidden_dropout

    def features(self, batch: TokenBatch) -> paddle.Tensor:
        """[D, width]: what the classifier sees."""
        features = self.sequence_features(batch)
        return features if self.fractions is None else self.fractions(features, batch)

    def sequence_features(self, batch: TokenBatch) -> paddle.Tensor:
        """[B, width]: the features of every sequence."""
        states = self.bert(batch)
        if self.blocks is None:
            pooled: paddle.Tensor = self.bert.pooler(cls_states(states[-1], batch.layout))
            return pooled
        chosen = [cls_states(states[block], batch.layout) for block in self.blocks]
        if self.pooling == "concat":
            return paddle.concat(chosen, axis=-1)
        stacked = paddle.stack(chosen)
        return stacked.mean(axis=0) if self.pooling == "mean" else stacked.max(axis=0)

    def classify(self, batch: TokenBatch, classifier: nn.Layer) -> paddle.Tensor:
        """Logits [D, C] of a classifier on the features, after dropout."""
        features = dropout_texts(self.features(batch), self.probability, self.training, batch)
        logits: paddle.Tensor = classifier(features)
        return logits


class BertForClassification(BertForFeatures):
    """Encoder with one classifier."""

    def __init__(
        self,
        config: BertConfig,
        num_classes: int,
        blocks: Sequence[int] | None = None,
        pooling: str = "concat",
        hierarchical: str | None = None,
    ) -> None:
        super().__init__(config, blocks, pooling, hierarchical)
        self.classifier = linear(config, self.width, num_classes)

    def forward(self, batch: TokenBatch) -> paddle.Tensor:
        """Logits [D, C]."""
        return self.classify(batch, self.classifier)


class BertForMultitask(BertForFeatures):
    """Encoder with one classifier per data set."""

    def __init__(
        self,
        config: BertConfig,
        num_classes: Mapping[str, int],
        blocks: Sequence[int] | None = None,
        pooling: str = "concat",
        hierarchical: str | None = None,
    ) -> None:
        """`num_classes`: classes by data set."""
        super().__init__(config, blocks, pooling, hierarchical)
        self.classifiers = nn.LayerDict(
            {name: linear(config, self.width, number) for name, number in num_classes.items()}
        )

    def forward(self, batch: TokenBatch, head: str) -> paddle.Tensor:
        """Logits [D, C] of the data set `head`."""
        return self.classify(batch, self.classifiers[head])


class OneHead:
    """A multi-task model as the classifier of one of its data sets, for evaluation."""

    def __init__(self, model: BertForMultitask, head: str) -> None:
        self._model = model
        self._head = head

    @property
    def training(self) -> bool:
        """Whether dropout is on."""
        return bool(self._model.training)

    def train(self) -> None:
        """Dropout on."""
        self._model.train()

    def eval(self) -> None:
        """Dropout off."""
        self._model.eval()

    def __call__(self, batch: TokenBatch) -> paddle.Tensor:
        """Logits [D, C]."""
        return self._model(batch, self._head)
