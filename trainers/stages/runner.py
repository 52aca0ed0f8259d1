"""One stage on one rank: make its parts, resume or start, train, evaluate on the test split, save the result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from configs.errors import ConfigError
from configs.schema import MultitaskStage, PretrainStage
from trainers.data.vocabulary import load_vocabulary
from trainers.engine.amp import FLOAT32_LAYERS
from trainers.engine.board import write_board
from trainers.engine.checkpoint import CheckpointStore, Snapshot, newest_intact
from trainers.engine.files import replace_json, sweep_partial
from trainers.engine.flops import device_peak, training_flops
from trainers.engine.loop import Parts, Publisher, TrainingLoop
from trainers.engine.metrics_log import StepLog
from trainers.engine.progress import Progress
from trainers.engine.ranks import wrap_model, wrap_optimizer
from trainers.model.config import BertConfig
from trainers.model.folder import ModelSource, load_folder, read_bert_config
from trainers.optim.adamw import make_adamw
from trainers.optim.ema import WeightAverage
from trainers.optim.groups import freeze_others, make_groups
from trainers.optim.schedule import make_schedule
from trainers.stages.finetune import FinetuneWork
from trainers.stages.multitask import MultitaskWork
from trainers.stages.pretrain import PretrainWork
from trainers.stages.work import Run, StageContext, StageWork

__all__ = ["Run", "StageRunner"]


def make_work(context: StageContext) -> StageWork:
    """The work of a stage by its task."""
    stage = context.run.config.stages[context.name]
    if isinstance(stage, PretrainStage):
        return PretrainWork(context, stage)
    if isinstance(stage, MultitaskStage):
        return MultitaskWork(context, stage)
    return FinetuneWork(context, stage)


class StageRunner:
    """Runs one stage; `run` returns when it is finished."""

    def __init__(self, run: Run, name: str) -> None:
        self.run_ = run
        self.name = name
        self.stage = run.config.stages[name]
        self.seed = run.config.stage_seed(name)
        self.facts = run.prepared["stages"][name]
        self.directory = run.directory / name
        self.store = CheckpointStore(self.directory / "checkpoints")
        self.metrics = StepLog(self.directory / "metrics.jsonl")
        self.samples = StepLog(self.directory / "samples.jsonl") if run.config.train.log_samples else None
        self.source = ModelSource(Path(run.prepared["model_dir"]), bool(run.prepared["model"]["lower_case"]))
        vocabulary = load_vocabulary(self.source.directory / "vocab.txt")
        self.work = make_work(StageContext(run, name, self.facts, self.directory, self.source, vocabulary))

    # Parts ----------------------------------------------------------------------------------------------------------

    def _start_folder(self) -> Path:
        start, outside = self.run_.config.stage_start(self.name), self.facts["start"]
        if outside is not None:
            return Path(outside["folder"])
        return self.source.directory if start.is_model else self.run_.directory / start.folder

    def _make_model(self, config: BertConfig, load: bool) -> Any:
        """The model with its starting weights; new heads come from the seed, the same on every rank."""
        paddle.seed(self.seed)
        model = self.work.build_model(config)
        if load:
            folder = self._start_folder()
            head = self.work.starting_head(folder)
            loaded = load_folder(model, folder, head)
            if self.run_.ranks.rank == 0:
                new = sorted({name.rsplit(".", 1)[0] for name in loaded.new})
                heads = f"; classifier of its data set {head}" if head is not None else ""
                heads += f"; new, from seed {self.seed}: {', '.join(new)}" if new else ""
                self.run_.recorder.message(f"{self.name}: weights from {folder}{heads}")
        return model

    def _make_parts(self, config: BertConfig, load: bool) -> Parts:
        task, model = self.work.make_task(), self._make_model(config, load)
        total = self.stage.max_steps or (self.stage.epochs or 0) * task.steps_per_epoch
        parameters = dict(model.named_parameters())
        groups = make_groups(parameters, config.num_layers, self.stage)
        trained = freeze_others(parameters, groups)
        optimizer = make_adamw(trained, groups, self.stage, self.run_.policy.master_weights)
        if self.run_.policy.master_weights:
            model, optimizer = paddle.amp.decorate(
                model,
                optimizer,
                level="O2",
                dtype=self.run_.policy.dtype,
                master_weight=True,
                excluded_layers=list(FLOAT32_LAYERS),
            )
        average = WeightAverage(trained, self.stage.ema) if self.stage.ema is not None else None
        ranks = self.run_.ranks
        return Parts(
            task,
            model,
            wrap_model(model, ranks, self.work.has_idle_parameters),
            wrap_optimizer(optimizer, ranks),
            optimizer,
            make_schedule(self.stage, total),
            average,
        )

    # Resume ---------------------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """What a checkpoint must agree with to be continued: everything that shapes the weights, and the data's content."""
        parts = {
            "stage": self.stage.model_dump(
                mode="json", exclude={"seed", "group", "swept_from", "init", "save_model_every"}
            ),
            "data": self.facts["data_fingerprint"],
            "seed": self.seed,
            "init": str(self.run_.config.stage_start(self.name)),
            "start": self.facts["start"] and self.facts["start"]["sha256"],
            "model": self.run_.prepared["model"]["fingerprint"],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _choose_checkpoint(self) -> int:
        """Step of the checkpoint to continue, -1 for none. Sweeps what a crash left, and says what was passed over."""
        run = self.run_
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store.sweep()
        for folder in (self.directory, self.directory / "models"):
            sweep_partial(folder)
        if run.resume_from is not None and run.resume_from.parent.parent == self.directory:
            return self.store.read(int(run.resume_from.name.removeprefix("step-"))).step
        snapshot, problems = newest_intact(self.store)
        for problem in problems:
            run.recorder.message(f"damaged checkpoint passed over: {problem}", "warning")
        return -1 if snapshot is None else snapshot.step

    def _find_checkpoint(self) -> Snapshot | None:
        """The checkpoint to continue, chosen by rank 0 and the same on every rank."""
        ranks = self.run_.ranks
        step = int(ranks.sum([ranks.on_first(self._choose_checkpoint, self.run_.recorder.beat) or 0])[0])
        snapshot = None if step < 0 else self.store.read(step)
        if snapshot is not None and snapshot.state["fingerprint"] != self.fingerprint():
            raise ConfigError(
                f"{self.store.path(step)}: belongs to other settings, data or model than the config now names",
                "start anew with --name NEW, or restore the settings (runs/NAME/config.yaml)",
            )
        return snapshot

    # The stage ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end and write the result. Raises Preempted when stopped on request."""
        run, started = self.run_, time.monotonic()
        run.recorder.stage = self.name
        run.recorder.enter("load", 0)
        config = read_bert_config(self._start_folder())
        snapshot = self._find_checkpoint()
        parts = self._make_parts(config, load=snapshot is None)
        progress = Progress.from_json(snapshot.state["progress"]) if snapshot else Progress()
        seconds_before = float(snapshot.state["seconds"]) if snapshot else 0.0
        loop = self._make_loop(parts, config, progress, lambda: seconds_before + time.monotonic() - started)
        self._announce(parts, progress, snapshot)
        if snapshot is not None:
            loop.restore(snapshot)
        if run.ranks.rank == 0:
            for log in filter(None, (self.metrics, self.samples)):
                log.cut_after(progress.step)
        loop.run()
        self._finish(loop, config, seconds_before + time.monotonic() - started)

    def _announce(self, parts: Parts, progress: Progress, snapshot: Snapshot | None) -> None:
        run = self.run_
        if run.ranks.rank != 0:
            return
        names = list(run.config.stages)
        run.recorder.record(
            "stage_start",
            stage=self.name,
            task=self.stage.task,
            index=names.index(self.name) + 1,
            stages=len(names),
            total_steps=parts.schedule.total_steps,
            steps_per_epoch=parts.task.steps_per_epoch,
            start_step=progress.step,
            resumed_from=str(self.store.path(snapshot.step)) if snapshot else None,
            num_examples=parts.task.num_examples,
            num_parameters=sum(parameter.size for parameter in parts.model.parameters()),
        )

    def _make_loop(
        self, parts: Parts, config: BertConfig, progress: Progress, seconds: Callable[[], float]
    ) -> TrainingLoop:
        run = self.run_
        peak = float(run.ranks.sum([device_peak(run.ranks.is_gpu, run.policy.enabled)])[0])
        loop = TrainingLoop(
            parts=parts,
            stage=self.stage,
            train=run.config.train,
            policy=run.policy,
            ranks=run.ranks,
            seed=self.seed,
            progress=progress,
            store=self.store,
            recorder=run.recorder,
            metrics=self.metrics,
            samples=self.samples,
            stop_requested=run.stop_requested,
            chaos=run.chaos,
            flops=lambda tokens, samples: training_flops(
                config, self.stage, tokens, samples, round(tokens * self.work.predicted_share)
            ),
            peak_flops=peak,
            extra_state=lambda: {"fingerprint": self.fingerprint(), "seconds": seconds()},
        )
        loop.evaluator = self.work.make_evaluator(parts, progress)
        if isinstance(self.stage, PretrainStage) and self.stage.save_model_every is not None:
            loop.publisher = Publisher(
                self.stage.save_model_every, lambda step, arrays: self._publish(config, step, arrays)
            )
        return loop

    def _publish(self, config: BertConfig, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the model of a step. Other stages and runs read it by this name."""
        target = self.directory / "models" / f"step-{step:08d}"
        self.work.save_model(target, arrays, config)
        self.run_.recorder.message(f"{self.name}: model of step {step} in {target}")

    # The result -----------------------------------------------------------------------------------------------------

    def _result_arrays(self, loop: TrainingLoop) -> dict[str, np.ndarray]:
        """Best weights by the validation metric where there is one, else the last; averaged ones with EMA. All ranks agree."""
        best, kind = loop.progress.best_step, "ema" if loop.parts.average is not None else "model"
        if best is not None and best != loop.progress.step:
            tensors = self.store.read(best).tensors
            return {**tensors["model"], **tensors[kind]}
        return loop.weights()

    def _finish(self, loop: TrainingLoop, config: BertConfig, seconds: float) -> None:
        run, progress = self.run_, loop.progress
        arrays = self._result_arrays(loop)
        for name, parameter in loop.parameters.items():
            parameter.set_value(arrays[name].astype(_numpy_dtype(parameter)))
        metrics: dict[str, Any] = {f"validation_{key}": value for key, value in progress.best_metrics.items()}
        metrics.update(self.work.test(loop))
        run.recorder.enter("save")
        run.ranks.on_first(lambda: self._save_result(loop, config, arrays, metrics, seconds), run.recorder.beat)

    def _save_result(
        self,
        loop: TrainingLoop,
        config: BertConfig,
        arrays: dict[str, np.ndarray],
        metrics: dict[str, Any],
        seconds: float,
    ) -> None:
        """Write the model folder and the curves, then done.json: from then on the stage is not repeated."""
        progress = loop.progress
        self.work.save_model(self.directory / "model", arrays, config)
        write_board(self.directory / "visualdl", self.metrics.read())
        end = {
            "step": progress.step,
            "reason": "early_stopping" if progress.early_stopped else "finished",
            "seconds": seconds,
            "metrics": metrics,
        }
        made_from = {"fingerprint": self.fingerprint(), "data_fingerprint": self.facts["data_fingerprint"]}
        done = {**end, "best_step": progress.best_step, **made_from}
        replace_json(self.directory / "done.json", done)
        self.run_.recorder.record("stage_end", stage=self.name, **end)


def _numpy_dtype(parameter: paddle.Tensor) -> str:
    """Type to set a parameter from: its own, or float32 for types NumPy lacks (Paddle casts)."""
    name = str(parameter.dtype).removeprefix("paddle.")
    return name if name in ("float16", "float32", "float64") else "float32"
