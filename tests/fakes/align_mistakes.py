"""Mistakes in texts, learning rates, the model, losses and steps."""

from __future__ import annotations

import functools
from typing import Any
from unittest.mock import patch

import numpy as np
import paddle
import sklearn.metrics
from paddle.nn import functional

from configs import rates
from tests.fakes.align_registry import FINETUNING, MUTATIONS, PRETRAINING, RATES, TEXT, Patches, everywhere, mutation
from trainers.data import truncate
from trainers.data.instances import InstancePlan
from trainers.data.tokenize import Tokenizer
from trainers.engine.loop import TrainingLoop
from trainers.model import batch, encoder, heads, linear
from trainers.optim import clip, groups, schedule
from trainers.tasks.pretrain import MaskedBatch, PretrainTask

# Text -------------------------------------------------------------------------------------------------------------------


@mutation("case is kept instead of lowered", TEXT, "ids lower-cased")
def _() -> Patches:
    original = Tokenizer.__init__
    return [patch.object(Tokenizer, "__init__", lambda self, vocabulary, lower_case: original(self, vocabulary, False))]


@mutation("accents are kept when lower-casing", TEXT, "ids lower-cased")
def _() -> Patches:
    from tokenizers import normalizers

    original = normalizers.BertNormalizer
    return [
        patch.object(normalizers, "BertNormalizer", lambda **options: original(**{**options, "strip_accents": False}))
    ]


@mutation("head of head + tail one token longer", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single

    def cut(ids: np.ndarray, max_length: int, head: int | None, tail: int | None) -> np.ndarray:
        return original(ids, max_length, head + 1 if head is not None else None, tail)

    return everywhere(original, cut)


@mutation("tail starts one token early", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single

    def cut(ids: np.ndarray, max_length: int, head: int | None, tail: int | None) -> np.ndarray:
        return original(ids[:-1] if len(ids) > max_length - 2 else ids, max_length, head, tail)

    return everywhere(original, cut)


@mutation("limit one token too low", TEXT, "cuts")
def _() -> Patches:
    original = truncate.truncate_single
    return everywhere(original, lambda ids, limit, head, tail: original(ids, limit - 1, head, tail))


@mutation("of equal texts of a pair the first loses", TEXT, "pairs")
def _() -> Patches:
    original = truncate.pair_lengths
    return everywhere(original, lambda a, b, room: original(b, a, room)[::-1])


# Learning rates ---------------------------------------------------------------------------------------------------------


@mutation("layer decay with exponent N - i", RATES, "rates linear", "rates no warm-up", "rates cosine")
def _() -> Patches:
    original = rates._block_multiples
    return everywhere(
        original, lambda stage, num_blocks: tuple(each * stage.layer_decay for each in original(stage, num_blocks))
    )


@mutation("biases decay", RATES, "decay")
def _() -> Patches:
    original = groups.decays
    return everywhere(original, lambda name: original(name) or name.endswith("bias"))


@mutation("warm-up one step ahead", RATES, "rates linear", "rates cosine", "rates constant", "rates polynomial")
def _() -> Patches:
    original = schedule.Schedule.__call__
    return [patch.object(schedule.Schedule, "__call__", lambda self, step: original(self, step + 1))]


@mutation("warm-up rounded up", RATES, "rates linear")
def _() -> Patches:
    original = schedule.warmup_steps
    return everywhere(
        original, lambda warmup, total: warmup if isinstance(warmup, int) else original(warmup, total) + 1
    )


# Model ------------------------------------------------------------------------------------------------------------------


@mutation("padding is not masked", PRETRAINING, "states", "mlm logits")
def _() -> Patches:
    return [patch.object(batch, "MASKED", 0.0)]


@mutation("LayerNorm eps 1e-5", PRETRAINING, "embeddings")
def _() -> Patches:
    original = paddle.nn.LayerNorm
    return [patch.object(paddle.nn, "LayerNorm", lambda size, epsilon: original(size, epsilon=1e-5))]


@mutation("GELU by tanh", PRETRAINING, "states")
def _() -> Patches:
    return [patch.object(functional, "gelu", functools.partial(functional.gelu, approximate=True))]


@mutation("scores divided by the root of the hidden size", PRETRAINING, "states")
def _() -> Patches:
    original = encoder.SelfAttention.__init__

    def init(self: Any, config: Any) -> None:
        original(self, config)
        self.q_proj.register_forward_post_hook(lambda layer, given, result: result * config.num_heads**-0.5)

    return [patch.object(encoder.SelfAttention, "__init__", init)]


@mutation("positions start at 1", PRETRAINING, "embeddings")
def _() -> Patches:
    original = encoder.Embeddings.forward

    def forward(self: Any, tokens: Any) -> Any:
        moved = batch.TokenBatch(tokens.ids_T, tokens.types_T, tokens.positions_T + 1, tokens.layout)
        return original(self, moved)

    return [patch.object(encoder.Embeddings, "forward", forward)]


@mutation("pooler without tanh", PRETRAINING, "pooled", "nsp logits")
def _() -> Patches:
    return [patch.object(encoder.Pooler, "forward", lambda self, cls_BH: self.dense(cls_BH))]


@mutation("no bias on the tied decoder", PRETRAINING, "mlm logits", "gradients")
def _() -> Patches:
    original = heads.LMPredictionHead.forward
    return [patch.object(heads.LMPredictionHead, "forward", lambda self, x: original(self, x) - self.decoder_bias)]


@mutation("classifier reads the block before", FINETUNING, "logits")
def _() -> Patches:
    original = encoder.Encoder.forward
    features = heads.BertForClassification.features

    def shifted(self: Any, tokens: Any) -> Any:
        if self.blocks is None:
            return features(self, tokens)
        with patch.object(encoder.Encoder, "forward", lambda own, x, layout: [x, *original(own, x, layout)[:-1]]):
            return features(self, tokens)

    return [patch.object(heads.BertForClassification, "features", shifted)]


@mutation("gradient of a bias is a mean over tokens", PRETRAINING, "gradients")
def _() -> Patches:
    original = linear._ProductWithBias.backward

    def backward(ctx: Any, grad_NO: Any) -> Any:
        grad_x, grad_weight, grad_bias = original(ctx, grad_NO)
        return grad_x, grad_weight, grad_bias / grad_NO.shape[0]

    return [patch.object(linear._ProductWithBias, "backward", staticmethod(backward))]


# Losses and steps -------------------------------------------------------------------------------------------------------


@mutation("next-sentence labels reversed", PRETRAINING, "token layout", "loss")
def _() -> Patches:
    original = InstancePlan.gather

    def gather(self: Any, items: np.ndarray) -> Any:
        ids, types, offsets, labels = original(self, items)
        return ids, types, offsets, 1 - labels

    return [patch.object(InstancePlan, "gather", gather)]


@mutation("padded mask slots count in the loss", PRETRAINING, "loss", "gradients")
def _() -> Patches:
    slots = property(lambda self: (20.0 * self.tokens.layout.num_sequences, 1.0 * self.tokens.layout.num_sequences))
    return [patch.object(MaskedBatch, "counts", slots)]


@mutation("mean of the micro-batches' means", PRETRAINING, "loss", "gradients")
def _() -> Patches:
    losses = PretrainTask.losses

    def means(self: Any, model: Any, part: Any) -> Any:
        return [term / count for term, count in zip(losses(self, model, part), part.counts, strict=True)]

    agree: Any = lambda self, parts: np.full(2, float(len(parts)))  # noqa: E731
    return [patch.object(PretrainTask, "losses", means), patch.object(TrainingLoop, "_agree", agree)]


@mutation("no clipping", PRETRAINING, "weights 10")
def _() -> Patches:
    return everywhere(clip.scale_gradients, lambda parameters, norm, limit: None)


def changed_adamw(**changes: Any) -> Patches:
    original = paddle.optimizer.AdamW
    return [patch.object(paddle.optimizer, "AdamW", lambda **options: original(**{**options, **changes}))]


@mutation("AdamW beta1 0.9 instead of 0.8", PRETRAINING, "weights 10")
def _() -> Patches:
    return changed_adamw(beta1=0.9)


@mutation("AdamW beta2 0.999 instead of 0.99", PRETRAINING, "weights 10")
def _() -> Patches:
    return changed_adamw(beta2=0.999)


@mutation("AdamW eps 1e-8 instead of 1e-6", PRETRAINING, "weights 2", "weights 10")
def _() -> Patches:
    return changed_adamw(epsilon=1e-8)


@mutation("biases decay in the steps", PRETRAINING, "weights 10")
def _() -> Patches:
    return MUTATIONS["biases decay"][2]()


@mutation("warm-up one step ahead in the steps", PRETRAINING, "weights 2", "weights 10")
def _() -> Patches:
    return MUTATIONS["warm-up one step ahead"][2]()


@mutation("layer decay with exponent N - i in the steps", FINETUNING, "weights 1", "weights 10")
def _() -> Patches:
    return MUTATIONS["layer decay with exponent N - i"][2]()


@mutation("macro-F1 is a micro average", FINETUNING, "evaluation")
def _() -> Patches:
    original = sklearn.metrics.f1_score
    return [patch.object(sklearn.metrics, "f1_score", lambda *given, **options: original(*given, average="micro"))]
