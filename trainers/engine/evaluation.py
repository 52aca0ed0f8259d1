"""Exact evaluation: every item once at any number of ranks, results in input order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn

from trainers.engine.amp import AmpPolicy
from trainers.engine.loop import StopAgreed
from trainers.engine.ranks import Ranks
from trainers.engine.records import Listener
from trainers.model.batch import make_text_batch
from trainers.tasks.finetune import TextEncoder

BATCH_TOKENS = 4096
"""Most tokens (padding included) that one rank evaluates at once; a longer hierarchical text is evaluated alone, and the padding of its
last fraction comes on top."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities [N, C] (float64) of the given rows, in their order, the same on every rank."""

    rows: np.ndarray
    probabilities: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """[N] int64: the most probable class of each row."""
        classes: np.ndarray = self.probabilities.argmax(axis=1)
        return classes


def make_batches(rows: np.ndarray, lengths: np.ndarray, world_size: int) -> list[list[np.ndarray]]:
    """Cut rows into batches of similar lengths and deal them to ranks in turn: per rank a list of index arrays into `rows`.

    All lists have the same number of entries (the last may be empty), so that ranks can meet after each one.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        size = max(1, BATCH_TOKENS // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    batches += [order[:0]] * (-len(batches) % world_size)
    return [batches[rank::world_size] for rank in range(world_size)]


def predict_rows(
    model: nn.Layer,
    encoder: TextEncoder,
    rows: np.ndarray,
    num_classes: int,
    policy: AmpPolicy,
    ranks: Ranks,
    recorder: Listener,
    split: str,
    stop_requested: Callable[[], bool],
) -> Predictions:
    """Class probabilities of all rows. Raises StopAgreed on all ranks when one of them was asked to stop."""

    def compute(batch: np.ndarray) -> np.ndarray:
        logits: np.ndarray = predict_batch(model, [encoder(int(row)) for row in rows[batch]], policy)
        return logits

    lengths = encoder.lengths()[rows]
    logits_NC = over_ranks(model, lengths, num_classes, compute, ranks, recorder, split, stop_requested)
    return Predictions(rows, softmax(logits_NC))


def over_ranks(
    model: nn.Layer,
    lengths: np.ndarray,
    width: int,
    compute: Callable[[np.ndarray], np.ndarray],
    ranks: Ranks,
    recorder: Listener,
    split: str,
    stop_requested: Callable[[], bool],
) -> np.ndarray:
    """[N, width] float64, the same on every rank: what `compute` says of every item of a batch (numbers of items, of `lengths` [N]
    tokens), each item computed once by some rank, without dropout. Raises StopAgreed on all ranks when one of them was asked to stop.
    """
    found = np.zeros((len(lengths), width))
    done = 0
    was_training = model.training
    model.eval()
    try:
        for batch in make_batches(np.arange(len(lengths)), lengths, ranks.world_size)[ranks.rank]:
            if len(batch):
                found[batch] = compute(batch)
            recorder.beat()
            finished, stop = ranks.sum([len(batch), stop_requested()])
            if stop:
                raise StopAgreed
            done += int(finished)
            if ranks.rank == 0:
                recorder.record("eval_progress", stage=recorder.stage, split=split, done=done, total=len(lengths))
    finally:
        if was_training:
            model.train()
    summed: np.ndarray = ranks.sum(found.reshape(-1)).reshape(found.shape)
    return summed


@paddle.no_grad()
def predict_batch(
    model: Any, texts: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], policy: AmpPolicy
) -> np.ndarray:
    """Logits [D, C] (float32) of texts, each given as its sequences of token ids and types."""
    tokens = make_text_batch(texts)
    with policy.autocast():
        logits = model(tokens)
    array: np.ndarray = logits.astype("float32").numpy()
    return array


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Probabilities of logits, float64."""
    exponents = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def score(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1 (over all classes), error_rate (%), loss (mean cross-entropy) and n."""
    from sklearn.metrics import accuracy_score, f1_score

    predicted = probabilities.argmax(axis=1)
    accuracy = float(accuracy_score(labels, predicted))
    chosen = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).tiny)
    classes = np.arange(probabilities.shape[1])
    return {
        "accuracy": accuracy,
        "macro_f1": float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)),
        "error_rate": 100.0 * (1.0 - accuracy),
        "loss": float(-np.log(chosen).mean()),
        "n": len(labels),
    }


def report(
    labels: np.ndarray, predictions: Predictions, label_names: Sequence[str], majority_class: int
) -> dict[str, Any]:
    """What eval.json holds: the scores, the confusion matrix (rows: labels, columns: predictions) and the majority class's scores."""
    from sklearn.metrics import confusion_matrix

    constant = np.zeros_like(predictions.probabilities)
    constant[:, majority_class] = 1.0
    majority = score(labels, constant)
    confusion = confusion_matrix(labels, predictions.classes, labels=np.arange(len(label_names)))
    return {
        **score(labels, predictions.probabilities),
        "label_names": list(label_names),
        "confusion": confusion.tolist(),
        "majority_label": label_names[majority_class],
        "majority_accuracy": majority["accuracy"],
        "majority_macro_f1": majority["macro_f1"],
    }


def predictions_table(labels: np.ndarray, predictions: Predictions, label_names: Sequence[str]) -> str:
    """predictions.tsv: one row per item in input order: index, label, prediction and the probability of every class."""
    lines = ["\t".join(["index", "label", "prediction", *(f"p({name})" for name in label_names)])]
    for row, label, guess, chances in zip(
        predictions.rows.tolist(),
        labels.tolist(),
        predictions.classes.tolist(),
        predictions.probabilities.tolist(),
        strict=True,
    ):
        lines.append("\t".join([str(row), label_names[label], label_names[guess], *(f"{p:.6f}" for p in chances)]))
    return "\n".join(lines) + "\n"
