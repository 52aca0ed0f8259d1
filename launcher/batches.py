"""Batch and step arithmetic of a stage: how a global batch is divided over ranks and micro-steps, and how many steps there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from configs.mixing import batches_per_epoch
from configs.schema import MultitaskStage, PretrainStage, StageBase


@dataclass(frozen=True)
class BatchPlan:
    """How the sequences of one optimizer step are divided."""

    batch: int
    """Sequences per optimizer step over all ranks."""
    per_rank: tuple[int, ...]
    """Sequences per optimizer step of each rank; they differ by at most one."""
    accumulation: int
    """Micro-steps per optimizer step."""
    micro_batch: int
    """Most sequences that one rank computes at once."""

    @property
    def text(self) -> str:
        """`24 sequences x 2 ranks x 1 accumulation = 48 per step`, or what each rank gets when it does not divide evenly."""
        world_size = len(self.per_rank)
        ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
        even = min(self.per_rank) == max(self.per_rank)
        if even and self.per_rank[0] == self.micro_batch * self.accumulation:
            return f"{self.micro_batch} sequences x {ranks} x {self.accumulation} accumulation = {self.batch} per step"
        shares = f"{self.per_rank[0]} sequences x {ranks}" if even else f"{_shares(self.per_rank)} over {ranks}"
        steps = "1 accumulation"
        if self.accumulation > 1:
            steps = f"{self.accumulation} accumulations of at most {self.micro_batch}"
        return f"{shares}, {steps} = {self.batch} per step"


def _shares(per_rank: tuple[int, ...]) -> str:
    """`13+12`; for more than four ranks `2 x 13 + 6 x 12`."""
    if len(per_rank) <= 4:
        return "+".join(str(share) for share in per_rank)
    return " + ".join(f"{len(list(group))} x {share}" for share, group in groupby(per_rank))


def divide_batch(batch: int, world_size: int, micro_batch: int | None) -> BatchPlan:
    """The first `batch mod world_size` ranks take one sequence more; accumulation = ceil(ceil(batch / world) / micro_batch)."""
    share, rest = divmod(batch, world_size)
    per_rank = tuple(share + 1 if rank < rest else share for rank in range(world_size))
    largest = per_rank[0]
    accumulation = math.ceil(largest / micro_batch) if micro_batch else 1
    return BatchPlan(batch, per_rank, accumulation, min(micro_batch or largest, largest))


@dataclass(frozen=True)
class StepPlan:
    """How many optimizer steps a stage takes; None where that depends on data that is not prepared yet."""

    num_examples: int | None
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None


def count_steps(stage: StageBase, num_examples: int | None, data_sets: Mapping[str, int] | None = None) -> StepPlan:
    """Steps of a stage over `num_examples` examples per epoch; `data_sets`: those of each data set of a multi-task stage.

    Fine-tuning uses every example, so that an epoch's last batch may be smaller; pre-training, whose instances are drawn anew each
    epoch, takes whole batches. A warm-up below 1 is a proportion: floor(proportion x total steps).
    """
    per_epoch = None
    if isinstance(stage, MultitaskStage):
        per_epoch = sum(batches_per_epoch(stage, data_sets).values()) if data_sets else None
    elif num_examples:
        whole = isinstance(stage, PretrainStage)
        per_epoch = max(1, num_examples // stage.batch) if whole else math.ceil(num_examples / stage.batch)
    total = stage.max_steps
    if total is None and per_epoch is not None and stage.epochs is not None:
        total = stage.epochs * per_epoch
    warmup: int | None
    if isinstance(stage.warmup, int):
        warmup = stage.warmup
    else:
        warmup = math.floor(stage.warmup * total) if total is not None else None
    return StepPlan(num_examples, per_epoch, total, warmup)
