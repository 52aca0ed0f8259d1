"""The one training loop. `step` counts optimizer steps; a step is one global batch over all ranks and micro-steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import paddle

from configs.errors import NoProgressError
from configs.schema import StageBase, TrainConfig
from trainers.data.order import deal, micro_batches
from trainers.engine.amp import AmpPolicy
from trainers.engine.blame import blame_step, describe_samples
from trainers.engine.chaos import Chaos
from trainers.engine.checkpoint import CheckpointStore, Snapshot
from trainers.engine.metrics_log import StepLog
from trainers.engine.progress import Progress
from trainers.engine.ranks import Ranks
from trainers.engine.records import Recorder
from trainers.engine.scaler import LossScaler
from trainers.engine.window import Window
from trainers.optim.adamw import adamw_state, load_adamw_state
from trainers.optim.clip import clip_each, global_norm, scale_gradients
from trainers.optim.ema import WeightAverage
from trainers.optim.schedule import Schedule
from trainers.tasks.base import MicroBatch, Task

T = TypeVar("T")

MOST_SKIPPED_IN_A_ROW = 20
PROGRESS_INTERVAL_S = 2.0


class Preempted(Exception):
    """All ranks agreed to stop, and a checkpoint of the current step is on disk."""


class StopAgreed(Exception):
    """All ranks agreed to stop in the middle of an evaluation."""


@dataclass(frozen=True)
class Evaluator:
    """How the validation split is evaluated and what follows from it."""

    every: int
    """Optimizer steps between two evaluations; the last step is always evaluated."""
    run: Callable[[], dict[str, float]]
    """Metrics of the model as it is now, the same on all ranks. Raises StopAgreed."""
    note: Callable[[dict[str, float]], bool]
    """Takes the metrics into the progress; returns whether they are the best so far."""


@dataclass(frozen=True)
class Publisher:
    """Which steps' weights are kept as models, and how one is written."""

    every: int
    """Optimizer steps between two models."""
    write: Callable[[int, dict[str, np.ndarray]], None]
    """Takes the step and the weights to keep; called on rank 0, and the others wait. Raises CannotWriteError."""


@dataclass(frozen=True)
class Parts:
    """What a stage trains, made by the caller."""

    task: Task
    model: paddle.nn.Layer
    wrapped: Any
    """The model under data parallelism."""
    optimizer: Any
    """The optimizer under fleet."""
    inner_optimizer: paddle.optimizer.AdamW
    schedule: Schedule
    average: WeightAverage | None


class TrainingLoop:
    """Trains one stage from its progress to the end, and can be interrupted at any step."""

    def __init__(
        self,
        parts: Parts,
        stage: StageBase,
        train: TrainConfig,
        policy: AmpPolicy,
        ranks: Ranks,
        seed: int,
        progress: Progress,
        store: CheckpointStore,
        recorder: Recorder,
        metrics: StepLog,
        samples: StepLog | None,
        stop_requested: Callable[[], bool],
        chaos: Chaos,
        flops: Callable[[int, int], float],
        peak_flops: float,
        extra_state: Callable[[], dict[str, Any]],
    ) -> None:
        """`flops(tokens, samples)`: estimated FLOP of training on them; `peak_flops`: of all ranks per second, 0 if unknown.
        `extra_state`: what the caller wants in every checkpoint's state.json."""
        self.parts = parts
        self.stage = stage
        self.train = train
        self.policy = policy
        self.ranks = ranks
        self.seed = seed
        self.progress = progress
        self.store = store
        self.recorder = recorder
        self.metrics = metrics
        self.samples = samples
        self.stop_requested = stop_requested
        self.chaos = chaos
        self.flops = flops
        self.peak_flops = peak_flops
        self.extra_state = extra_state
        self.parameters = dict(parts.model.named_parameters())
        self.scaler = LossScaler(policy.scales_loss)
        self.window = Window(parts.task.terms, ranks)
        self.evaluator: Evaluator | None = None
        self.publisher: Publisher | None = None
        self._grad_norm = 0.0
        self._saved_step = -1
        self._next_progress_s = 0.0
        self._progress_due = 0.0

    @property
    def total_steps(self) -> int:
        return self.parts.schedule.total_steps

    def run(self) -> None:
        """Train to the end. Raises Preempted, NoProgressError, CannotWriteError."""
        self.recorder.enter("first_step", self.progress.step)
        self.window.reset_clock()
        if self.progress.step:
            self._evaluate_and_save(due=False)
        while self.progress.step < self.total_steps and not self.progress.early_stopped:
            self._step()
            self._log()
            self._publish()  # before the checkpoint of the same step: whatever is resumed, no model of an earlier step is missing
            due = self.progress.step % self.train.checkpoint_every == 0 or self.progress.step == self.total_steps
            self._evaluate_and_save(due)
        self._save()
        self._wait_for_save()

    # One optimizer step ---------------------------------------------------------------------------------------------

    def _step(self) -> None:
        task, step = self.parts.task, self.progress.step
        epoch, index = divmod(step, task.steps_per_epoch)
        ids = task.batch_ids(epoch, index)
        lengths = task.lengths(epoch, ids)
        hand = deal(lengths, self.ranks.world_size)[self.ranks.rank]
        self.recorder.works_on(lambda: describe_samples(task, ids[hand]))
        factor = self.chaos.begin_step(self.recorder.stage, step)
        own = micro_batches(hand, lengths, self.stage.micro_batch)
        batches = [task.micro_batch(epoch, step, ids[part]) for part in own] or [task.micro_batch(epoch, step, ids[:0])]
        counts = self._agree(batches)
        shares = self._forward_backward(step, batches, counts, factor)
        self._update(step, lambda: blame_step(task, self.ranks, ids, lengths, shares))
        if self.samples is not None and self.ranks.rank == 0:
            self.samples.append({"step": step + 1, "epoch": epoch, "ids": ids.tolist()})
        num_tokens = int(lengths.sum())
        num_cells = sum(batch.num_cells for batch in batches)
        self.window.add(shares, len(ids), num_tokens, num_cells, present=counts > 0.0)
        self.progress.step += 1
        self.progress.samples += len(ids)
        self.progress.tokens += num_tokens
        self.recorder.works_on(None)
        self.recorder.enter("step", self.progress.step)

    def _agree(self, batches: list[MicroBatch]) -> np.ndarray:
        """Global count of items behind each loss term; stops here if any rank was asked to. One small collective per step."""
        own = [sum(column) for column in zip(*(batch.counts for batch in batches), strict=True)]
        wants_progress = self.ranks.rank == 0 and time.monotonic() >= self._next_progress_s
        with self.recorder.waiting_for_peers():
            *counts, stop, self._progress_due = self.ranks.sum([*own, self.stop_requested(), wants_progress])
        self.store.raise_failure()
        if stop:
            self._preempt()
        return np.asarray(counts)

    def _forward_backward(
        self, step: int, batches: list[MicroBatch], counts: np.ndarray, factor: float
    ) -> paddle.Tensor:
        """Accumulate gradients of the global mean loss, all-reduced once; returns this rank's share of each loss term [K].

        `factor`: of this rank's loss; 1 but for a rehearsed fault.
        Data parallelism averages gradients over ranks, so the local sums are multiplied by the world size.
        """
        shares = paddle.zeros([len(counts)], dtype="float32")
        for number, batch in enumerate(batches):
            paddle.seed(dropout_seed(self.seed, step, number, self.ranks.rank))
            last = number == len(batches) - 1
            quiet = self.ranks.world_size > 1 and not last
            with self.parts.wrapped.no_sync() if quiet else nullcontext():
                with self.policy.autocast():
                    sums = self.parts.task.losses(self.parts.wrapped, batch)
                scales = [max(float(count), 1.0) / factor for count in counts]
                terms = [term / scale for term, scale in zip(sums, scales, strict=True)]
                loss = paddle.add_n(terms) * float(self.ranks.world_size)
                self.scaler.scale(loss).backward()
            shares = shares + paddle.stack([term.detach().reshape([]) for term in terms])
            self.recorder.beat()
        return shares

    def _update(self, step: int, blame: Callable[[], str]) -> None:
        """Clip and step, or skip the step on every rank alike when the gradients are not finite; `blame` then says why."""
        optimizer, parameters = self.parts.optimizer, self.parameters.values()
        self.scaler.unscale(parameters)
        norm = float(global_norm(parameters))
        self._grad_norm = norm
        if math.isfinite(norm):
            if self.stage.clip_per_parameter:
                clip_each(parameters, self.stage.clip)
            else:
                scale_gradients(parameters, norm, self.stage.clip)
            optimizer.set_lr(self.parts.schedule(step))
            optimizer.step()
            self.progress.skipped_in_a_row = 0
            if self.parts.average is not None:
                self.parts.average.update(step + 1)
        else:
            self._skip(step, blame)
        self.scaler.update(found_inf=not math.isfinite(norm))
        optimizer.clear_grad(set_to_zero=False)

    def _skip(self, step: int, blame: Callable[[], str]) -> None:
        self.progress.skipped_steps += 1
        if self.scaler.expects_overflow:
            return
        self.progress.skipped_in_a_row += 1
        why = blame()
        if self.ranks.rank == 0:
            text = f"step {step + 1}: the gradients are not finite; the update was skipped: {why}"
            self.recorder.message(text, "warning")
        if self.progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise NoProgressError(
                f"the gradients of {MOST_SKIPPED_IN_A_ROW} steps in a row are not finite (last: step {step + 1}: {why})",
                "lower lr, lengthen warmup, or use amp.dtype=bfloat16",
            )

    # Records --------------------------------------------------------------------------------------------------------

    def _log(self) -> None:
        step = self.progress.step
        due = step % self.train.log_every == 0 or step == self.total_steps
        if not due and not self._progress_due:
            return
        entry = self._entry()
        if due:
            if self.ranks.rank == 0:
                self.metrics.append({key: value for key, value in entry.items() if key != "total_steps"})
            self.window.reset()
        if self.ranks.rank == 0:
            self.recorder.record("progress", stage=self.recorder.stage, **entry)
        self._next_progress_s = time.monotonic() + PROGRESS_INTERVAL_S

    def _entry(self) -> dict[str, Any]:
        """One line of metrics.jsonl about the window that ends now."""
        progress, summary = self.progress, self.window.summary()
        seconds = summary.pop("seconds")
        flops = self.flops(self.window.tokens, self.window.samples)
        return {
            "step": progress.step,
            "total_steps": self.total_steps,
            "epoch": progress.step / self.parts.task.steps_per_epoch,
            "lr": self.parts.schedule(progress.step - 1),
            "grad_norm": self._grad_norm,
            "samples": progress.samples,
            "tokens": progress.tokens,
            **summary,
            "mfu": flops / seconds / self.peak_flops if self.peak_flops else None,
            "skipped_steps": progress.skipped_steps,
            "time_s": seconds,
        }

    # Models, evaluation and checkpoints -----------------------------------------------------------------------------

    def weights(self) -> dict[str, np.ndarray]:
        """The weights as they are now, float32; the averaged ones with EMA."""
        weights = {name: parameter.astype("float32").numpy() for name, parameter in self.parameters.items()}
        if self.parts.average is not None:
            weights |= {name: average.numpy() for name, average in self.parts.average.averages.items()}
        return weights

    def _publish(self) -> None:
        publisher, step = self.publisher, self.progress.step
        if publisher is None or step % publisher.every:
            return
        started = time.monotonic()
        self.recorder.enter("save")
        weights = self.weights() if self.ranks.rank == 0 else {}
        self.ranks.on_first(lambda: publisher.write(step, weights), self.recorder.beat)
        self.window.exclude(time.monotonic() - started)

    def _evaluate_and_save(self, due: bool) -> None:
        evaluator, step = self.evaluator, self.progress.step
        is_new = step != self.progress.evaluated_step
        if evaluator is not None and is_new and (step % evaluator.every == 0 or step == self.total_steps):
            started = time.monotonic()
            due = self._evaluate(evaluator) or due
            self.window.exclude(time.monotonic() - started)
        if due:
            started = time.monotonic()
            self._save()
            self.window.exclude(time.monotonic() - started)
        self.recorder.enter("step", step)

    def _evaluate(self, evaluator: Evaluator) -> bool:
        self.recorder.enter("evaluate")
        return evaluator.note(self.guard_stop(lambda: self._evaluate_result(evaluator)))

    def _evaluate_result(self, evaluator: Evaluator) -> dict[str, float]:
        with self.parts.average.swapped_in() if self.parts.average is not None else nullcontext():
            return evaluator.run()

    def guard_stop(self, evaluate: Callable[[], T]) -> T:
        """Run an evaluation; when all ranks agree to stop in it, save and raise Preempted: it is repeated after the resume."""
        try:
            return evaluate()
        except StopAgreed:
            self._preempt()

    def _preempt(self) -> NoReturn:
        self._save()
        self._wait_for_save()
        raise Preempted

    def _save(self) -> None:
        """Copy everything to the host and commit it in the background."""
        if self._saved_step == self.progress.step:
            return
        self.recorder.enter("save")
        window = self.window.state()
        self._saved_step = self.progress.step
        if self.ranks.rank != 0:
            return
        started = time.monotonic()
        tensors = {
            "model": {name: parameter.numpy() for name, parameter in self.parameters.items()},
            "optimizer": {
                name: tensor.numpy()
                for name, tensor in adamw_state(self.parts.inner_optimizer, self.parameters).items()
            },
        }
        if self.parts.average is not None:
            tensors["ema"] = {name: average.numpy() for name, average in self.parts.average.averages.items()}
        state: dict[str, Any] = {"progress": self.progress.to_json(), "window": window, "scaler": self.scaler.state()}
        state |= {"world_size": self.ranks.world_size, **self.extra_state()}
        snapshot = Snapshot(self.progress.step, tensors, state)
        best = {self.progress.best_step} if self.progress.best_step is not None else set()
        self.store.write_later(snapshot, lambda: self._saved(snapshot, best, started))

    def _saved(self, snapshot: Snapshot, best: set[int], started: float) -> None:
        num_bytes = sum(array.nbytes for arrays in snapshot.tensors.values() for array in arrays.values())
        self.recorder.record(
            "checkpoint",
            stage=self.recorder.stage,
            step=snapshot.step,
            path=str(self.store.path(snapshot.step)),
            bytes=num_bytes,
            seconds=time.monotonic() - started,
        )
        self.store.prune(self.train.keep_checkpoints, best, snapshot.step)

    def _wait_for_save(self) -> None:
        """Every rank waits until rank 0's write is durable."""
        self.ranks.on_first(self.store.wait, self.recorder.beat)

    def restore(self, snapshot: Snapshot) -> None:
        """Put a checkpoint's tensors and counters in place (the progress object was made from the same checkpoint)."""
        for name, parameter in self.parameters.items():
            parameter.set_value(snapshot.tensors["model"][name])
        load_adamw_state(self.parts.inner_optimizer, self.parameters, snapshot.tensors["optimizer"])
        if self.parts.average is not None:
            self.parts.average.load(snapshot.tensors["ema"])
        self.scaler.load(snapshot.state["scaler"])
        self.window.restore(snapshot.state["window"])
        self._saved_step = snapshot.step


def dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """Seed of Paddle's generator for one micro-step of one rank: 32 bits of NumPy's SeedSequence."""
    return int(np.random.SeedSequence((seed, step, micro_step, rank)).generate_state(1)[0])
