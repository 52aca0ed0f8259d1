"""What is compared, how closely, and the comparison.

A row covers every array whose key begins with `prefix`; both sides must have exactly the same keys and shapes. For each array
    largest difference <= absolute + relative * scale,
where `scale` is the largest absolute value of the reference's array; for weights it is the largest change since the start, because the
weights themselves agree whatever the optimizer does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainers.align.settings import FRACTION_KINDS, FROZEN, HIERARCHICAL, ORIGINAL, RATE_SETTINGS

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    prefix: str
    """Arrays whose key is `prefix/ITEM`."""
    what: str
    absolute: float
    relative: float

    @property
    def exact(self) -> bool:
        """Whether nothing at all may differ (ids, labels)."""
        return self.absolute == self.relative == 0.0


@dataclass(frozen=True)
class Result:
    """A row's outcome; the differences of single arrays by item in `details`."""

    section: str
    row: Row
    status: str
    """pass, fail or skipped."""
    num_arrays: int
    num_values: int
    max_abs: float
    max_rel: float
    """Largest difference divided by the scale of its array, of the arrays whose scale is above the absolute tolerance: the others are
    zero but for rounding, such as the gradient of a key's bias."""
    worst: str
    """The item that comes nearest to its tolerance, or what is wrong."""
    details: tuple[tuple[str, float, float, bool], ...] = ()
    """(item, largest difference, the same relative to scale, passed)."""

    def to_json(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "key": self.row.prefix,
            "what": self.row.what,
            "status": self.status,
            "arrays": self.num_arrays,
            "values": self.num_values,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "tolerance_abs": self.row.absolute,
            "tolerance_rel": self.row.relative,
            "worst": self.worst,
            "details": [
                {"item": item, "max_abs": absolute, "max_rel": relative, "passed": passed}
                for item, absolute, relative, passed in self.details
            ],
        }


def exact(prefix: str, what: str) -> Row:
    """A row of whole numbers or of values without rounding."""
    return Row(prefix, what, 0.0, 0.0)


TEXT_ROWS = (
    exact("ids lower-cased", "token ids, lower-cased"),
    exact("ids cased", "token ids, case kept"),
    exact("cuts", "head, tail, head + tail"),
    exact("pairs", "pairs: ids and types"),
)
RATE_ROWS = (
    *(Row(f"rates {label}", f"learning rates, {label}", 1e-18, 1e-12) for label in RATE_SETTINGS),
    exact("decay", "weight decay of every parameter"),
)
_FORWARD_ROWS = (
    exact("token layout", "ids, types and labels of a batch"),
    Row("embeddings", "embedding output", 1e-6, 2e-6),
    Row("states", "state after every block", 1e-6, 2e-5),
    Row("pooled", "pooled output", 1e-6, 2e-5),
)
_TRAINING_ROWS = (
    Row("loss", "losses of 10 steps", 1e-6, 1e-4),
    Row("gradients", "gradient of every parameter", 1e-8, 5e-4),
    Row("gradient norm", "gradient norms of 10 steps", 1e-6, 1e-3),
)
FINETUNING_ROWS = (
    *_FORWARD_ROWS,
    Row("logits", "class logits: pooler, chosen blocks", 1e-6, 2e-5),
    Row("evaluation", "evaluation: accuracy, macro-F1, loss", 1e-6, 2e-5),
    *_TRAINING_ROWS,
    Row("weights 1", "weights after 1 step", 1e-6, 1e-2),
    Row("weights 10", "weights after 10 steps", 1e-6, 1e-2),
)
PRETRAINING_ROWS = (
    *_FORWARD_ROWS,
    Row("mlm logits", "MLM logits", 1e-6, 2e-5),
    Row("nsp logits", "NSP logits", 1e-6, 2e-5),
    *_TRAINING_ROWS,
    Row("weights 2", "weights after 2 steps", 1e-6, 1e-2),
    Row("weights 10", "weights after 10 steps", 1e-6, 1e-2),
)
VARIANT_ROWS = {
    ORIGINAL: (
        *_TRAINING_ROWS,
        Row("weights 2", "weights after 2 steps", 1e-6, 1e-2),
        Row("weights 10", "weights after 10 steps", 1e-6, 1e-2),
    ),
    FROZEN: (
        *_TRAINING_ROWS,
        Row("weights 1", "pooler and classifier after 1 step", 1e-6, 1e-2),
        Row("weights 10", "pooler and classifier after 10 steps", 1e-6, 1e-2),
        exact("frozen", "embeddings and blocks after 10 steps"),
    ),
    HIERARCHICAL: (
        exact("token layout", "ids and types of all fractions"),
        *(Row(f"logits {kind}", f"class logits, {kind} of the fractions", 1e-6, 2e-5) for kind in FRACTION_KINDS),
        *_TRAINING_ROWS,
        Row("weights 1", "weights after 1 step", 1e-6, 1e-2),
        Row("weights 10", "weights after 10 steps", 1e-6, 1e-2),
    ),
}
"""By variant (settings.CaseSettings.variants)."""


def compare_row(section: str, row: Row, ours: Arrays, theirs: Arrays, start: Arrays) -> Result:
    """One row: fails when an item is missing on a side, has another shape or differs too much, or when there is none."""
    prefix = f"{row.prefix}/"
    wanted = {key.removeprefix(prefix): array for key, array in theirs.items() if key.startswith(prefix)}
    own = {key.removeprefix(prefix): array for key, array in ours.items() if key.startswith(prefix)}
    num_values = sum(array.size for array in wanted.values())
    fault = _fault(own, wanted)
    if fault:
        return Result(section, row, "fail", len(wanted), num_values, float("nan"), float("nan"), fault)
    by_change = row.prefix.startswith("weights ")
    details, worst, nearest = [], "", -1.0
    for item, array in wanted.items():
        difference, relative, used = _differences(row, own[item], array, start[item] if by_change else None)
        details.append((item, difference, relative, used <= 1.0))
        if used > nearest:
            worst, nearest = item, used
    return Result(
        section,
        row,
        "pass" if all(passed for *_, passed in details) else "fail",
        len(wanted),
        num_values,
        max(difference for _, difference, _, _ in details),
        max(relative for _, _, relative, _ in details),
        worst,
        tuple(details),
    )


def _fault(own: Arrays, wanted: Arrays) -> str:
    """What makes a comparison impossible, or nothing."""
    if not wanted:
        return "the reference has no such values"
    missing = [item for item in wanted if item not in own] + [item for item in own if item not in wanted]
    if missing:
        return f"only on one side: {', '.join(sorted(missing)[:3])} ({len(missing)} in all)"
    for item, array in wanted.items():
        if own[item].shape != array.shape:
            return f"{item}: shape {list(own[item].shape)}, reference {list(array.shape)}"
    return ""


def _differences(row: Row, own: np.ndarray, wanted: np.ndarray, start: np.ndarray | None) -> tuple[float, float, float]:
    """Largest difference, the same divided by the scale, and the share of the tolerance that it uses (above 1: too much)."""
    if wanted.size == 0:
        return 0.0, 0.0, 0.0
    ours64, theirs64 = own.astype(np.float64), wanted.astype(np.float64)
    difference = float(np.abs(ours64 - theirs64).max())
    scale = float(np.abs(theirs64 if start is None else theirs64 - start).max())
    if not np.isfinite(difference):
        return difference, difference, float("inf")
    relative = difference / scale if scale > row.absolute else 0.0
    limit = row.absolute + row.relative * scale
    if difference == 0.0:
        return 0.0, 0.0, 0.0
    return difference, relative, difference / limit if limit else float("inf")
