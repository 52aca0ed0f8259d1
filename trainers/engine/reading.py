"""Evaluation of a pre-training model on held-out instances: how well it fills in masked tokens and tells following from random text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from trainers.data.instances import NO_NEXT
from trainers.data.pretraining import Epoch
from trainers.engine.amp import AmpPolicy
from trainers.engine.evaluation import over_ranks
from trainers.engine.ranks import Ranks
from trainers.engine.records import Listener
from trainers.tasks.pretrain import MaskedBatch, make_masked_batch

FIGURES = 6
"""Of each instance: masked tokens, their loss, how many are right; whether it is a pair, its loss, whether it is right."""


def score_held_out(
    model: nn.Layer,
    instances: Epoch,
    nsp: bool,
    policy: AmpPolicy,
    ranks: Ranks,
    recorder: Listener,
    split: str,
    stop_requested: Callable[[], bool],
) -> dict[str, float]:
    """mlm_accuracy, mlm_loss (mean over masked tokens), perplexity (its exponential), with NSP nsp_accuracy and nsp_loss (means over
    pairs), and n instances; the same at any number of ranks. Raises StopAgreed."""

    def compute(items: np.ndarray) -> np.ndarray:
        masked = instances.masked(items)
        owners = np.searchsorted(masked.offsets, masked.positions, side="right") - 1
        figures: np.ndarray = _figures(model, make_masked_batch(masked, nsp, None, 1.0), owners, policy)
        return figures

    figures_NF = over_ranks(model, instances.lengths, FIGURES, compute, ranks, recorder, split, stop_requested)
    masked, mlm_loss, mlm_right, pairs, nsp_loss, nsp_right = figures_NF.sum(axis=0).tolist()
    mean_loss = mlm_loss / max(1.0, masked)
    metrics = {
        "mlm_accuracy": mlm_right / max(1.0, masked),
        "mlm_loss": mean_loss,
        "perplexity": math.exp(min(mean_loss, 700.0)),
    }
    if pairs:
        metrics |= {"nsp_accuracy": nsp_right / pairs, "nsp_loss": nsp_loss / pairs}
    return {**metrics, "n": len(figures_NF)}


@paddle.no_grad()
def _figures(model: Any, batch: MaskedBatch, owners: np.ndarray, policy: AmpPolicy) -> np.ndarray:
    """[B, FIGURES] float64. `owners` [M]: the sequence of each masked position."""
    with policy.autocast():
        mlm_MV, nsp_B2 = model(batch.tokens, batch.positions_M)
    num = batch.tokens.layout.num_sequences
    figures = np.zeros((num, FIGURES))
    loss_M, right_M = _scores(mlm_MV, batch.labels_M)
    for column, values in enumerate((np.ones_like(loss_M), loss_M, right_M)):
        figures[:, column] = np.bincount(owners, weights=values, minlength=num)
    if nsp_B2 is not None and batch.next_B is not None:
        is_pair = batch.next_B.numpy() != NO_NEXT
        loss_B, right_B = _scores(nsp_B2, paddle.clip(batch.next_B, min=0))
        figures[:, 3:] = np.stack([is_pair, is_pair * loss_B, is_pair * right_B], axis=1)
    return figures


def _scores(logits_NC: paddle.Tensor, labels_N: paddle.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of each row, and 1 where the label is the most probable class: float64 [N]."""
    logits_NC = logits_NC.astype("float32")
    loss = F.cross_entropy(logits_NC, labels_N, reduction="none").reshape([-1]).numpy().astype(np.float64)
    right = (paddle.argmax(logits_NC, axis=-1) == labels_N).numpy().astype(np.float64)
    return loss, right
