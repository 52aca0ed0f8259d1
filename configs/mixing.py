"""How many batches of each data set an epoch of a multi-task stage has: told alike by the plan, preparation and training."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from configs.stages import MultitaskStage


def batches_of_all_rows(stage: MultitaskStage, examples: Mapping[str, int]) -> dict[str, int]:
    """Steps that go once through each data set, its last batch perhaps smaller. `examples`: training rows by name."""
    return {name: -(-examples[name] // stage.batch) for name in stage.data_sets}


def batches_per_epoch(stage: MultitaskStage, examples: Mapping[str, int]) -> dict[str, int]:
    """Steps of each data set in every epoch; their sum is the same for every mixing.

    Proportional: every row once. Else the sum is shared out by weight: whole parts first, then one more to the largest
    remainders (ties: the data set named first).
    """
    whole = batches_of_all_rows(stage, examples)
    if stage.mixing == "proportional":
        return whole
    total, shares = sum(whole.values()), mixing_shares(stage, examples)
    counts = {name: int(total * share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - total * shares[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def mixing_shares(stage: MultitaskStage, examples: Mapping[str, int] | None) -> dict[str, Fraction]:
    """The share of the steps that each data set is to have; empty while it depends on sizes that are not known."""
    if isinstance(stage.mixing, dict):
        weights = {name: Fraction(stage.mixing[name]) for name in stage.data_sets}
    elif stage.mixing == "equal":
        weights = dict.fromkeys(stage.data_sets, Fraction(1))
    elif examples is not None:
        weights = {name: Fraction(count) for name, count in batches_of_all_rows(stage, examples).items()}
    else:
        return {}
    total = sum(weights.values(), Fraction())
    return {name: weight / total for name, weight in weights.items()}
