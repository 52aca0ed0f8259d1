"""Which figures of a record are shown, in which order, under which label and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from launcher.console import text

Pair = tuple[str, str]


def _plain(value: float) -> str:
    return f"{value:.4f}"


_PROGRESS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "loss", _plain),
    ("lr", "lr", text.learning_rate),
    ("grad_norm", "grad norm", lambda value: f"{value:.2f}"),
    ("samples_per_s", "samples/s", text.rate),
    ("tokens_per_s", "tokens/s", text.rate),
    ("padding", "padding", lambda value: f"{100 * value:.1f} %"),
)
_EVALUATION: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("accuracy", "accuracy", text.percent),
    ("macro_f1", "macro-F1", text.percent),
    ("perplexity", "perplexity", lambda value: f"{value:,.2f}"),
    ("mlm_accuracy", "MLM accuracy", text.percent),
    ("nsp_accuracy", "NSP accuracy", text.percent),
    ("loss", "loss", _plain),
    ("mlm_loss", "MLM loss", _plain),
    ("nsp_loss", "NSP loss", _plain),
)


def progress_pairs(record: Mapping[str, Any]) -> list[Pair]:
    """Labels and texts of a progress record; the terms of the loss (`losses`) follow it where there are several, but for those that
    had no step since the last record."""
    pairs = _pairs(record, _PROGRESS)
    losses = record.get("losses") or {}
    parts = [(name, _plain(value)) for name, value in losses.items() if isinstance(value, (int, float))]
    return pairs[:1] + parts + pairs[1:] if len(losses) > 1 else pairs


def evaluation_pairs(metrics: Mapping[str, Any]) -> list[Pair]:
    """Labels and texts of evaluation metrics; where they are means over data sets, the accuracy of each follows."""
    data_sets = metrics.get("data_sets") or {}
    each = [(f"{name} accuracy", text.percent(scores["accuracy"])) for name, scores in data_sets.items()]
    return _pairs(metrics, _EVALUATION) + each


def joined(pairs: list[Pair]) -> str:
    """`accuracy 91.20 %, loss 0.2871`."""
    return ", ".join(f"{label} {value}" for label, value in pairs)


def _pairs(record: Mapping[str, Any], shown: tuple[tuple[str, str, Callable[[float], str]], ...]) -> list[Pair]:
    return [(label, write(record[key])) for key, label, write in shown if isinstance(record.get(key), (int, float))]
