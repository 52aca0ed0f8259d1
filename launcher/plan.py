"""The plan of a run: everything that is decided before anything starts.

`make_plan` is pure. `plan` prints what it returns, `train` runs its `launch`, and the run directory keeps it as plan.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from configs.mixing import batches_per_epoch, mixing_shares
from configs.schema import AmpConfig, ClassifierStage, Config, LaunchConfig, MultitaskStage, PretrainStage, StageBase
from launcher import batches, corpus_texts, estimates, secrets
from launcher.anew import Anew
from launcher.environment_vars import PROXY_NAMES, rank_environment
from launcher.facts import NVIDIA_SMI_TIMEOUT_S, Facts, Gpu, ModelFacts, StageFacts
from launcher.parameters import ParameterGroup, parameter_groups
from launcher.restart_policy import RestartPolicy
from launcher.settings import repeated_groups, stage_settings
from launcher.spec import Bounds, LaunchSpec, NodeSpec
from launcher.topology import Topology

PREPARE_MODULE = "trainers.prepare"
PHASE_WORDS = {
    "import": "start and import",
    "rendezvous": "the rendezvous",
    "load": "loading",
    "first_step": "the first step",
    "step": "a step, or 20 times the median step",
    "evaluate": "a batch of an evaluation",
    "save": "saving",
}
DOWNLOAD_SECRETS = ("HF_TOKEN",)
"""Secrets that only the prepare command may get, by name."""


@dataclass(frozen=True)
class Task:
    """What to run and where its parts lie."""

    root: str
    """Root of the source tree."""
    python: str
    """Interpreter of the ranks, absolute."""
    run_dir: str
    config_path: str
    """The config as the user named it."""
    stages: tuple[str, ...]
    """The stages that were asked for, in order."""
    finished: tuple[str, ...] = ()
    """Those that an earlier launch has finished: they are not repeated."""
    anew: tuple[Anew, ...] = ()
    """Those that have begun and are trained again, as their settings have changed."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Model folders of other runs, by the stage that starts from them."""
    resume_from: str = ""
    """A checkpoint directory to start from instead of the newest one; empty: the newest."""
    threads: int | None = None
    """Threads per rank of the earlier launches of this run; None for a new run."""
    faults: tuple[str, ...] = ()
    """Faults on purpose (--chaos), each with its stage."""


@dataclass(frozen=True)
class DataSetPlan:
    """One data set of a multi-task stage; None where it depends on data that is not prepared yet."""

    name: str
    dataset: str
    num_examples: int | None
    num_labels: int | None
    share: float | None
    """Part of the steps that are batches of it."""
    steps_per_epoch: int | None


@dataclass(frozen=True)
class StagePlan:
    """One stage: its arithmetic, rates and estimated needs."""

    name: str
    task: str
    group: str | None
    finished: bool
    init: str
    """What its weights start from: `model`, STAGE, RUN/STAGE, the latter two also with @STEP."""
    start_folder: str
    """The model folder when it is another run's."""
    seed: int
    batch: batches.BatchPlan
    steps: batches.StepPlan
    epochs: int | None
    lr: float
    schedule: str
    warmup: str
    max_length: int
    reading: str
    """How long texts are read; empty in pre-training."""
    corpora: tuple[str, ...]
    """What a pre-training stage reads, one line per corpus; none of a fine-tuning stage."""
    instances: str
    """How its instances are made."""
    evaluation: str
    groups: tuple[ParameterGroup, ...]
    """Empty while the model's size is unknown."""
    memory: estimates.MemoryEstimate | None
    disk: estimates.DiskEstimate | None
    data_sets: tuple[DataSetPlan, ...] = ()
    """Of a multi-task stage."""
    mixing: str = ""
    own: tuple[tuple[str, Any], ...] = ()
    """Settings, by their keys, in which it differs from other stages of its group that are planned."""


@dataclass(frozen=True)
class Wait:
    """One bounded wait."""

    what: str
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run will do, where, with what, for how long."""

    name: str
    config: str
    run_dir: str
    seed: int
    model: str
    model_facts: ModelFacts | None
    stages: tuple[StagePlan, ...]
    world_size: int
    device: str
    gpus: tuple[Gpu, ...]
    cores: int
    threads_per_rank: int
    amp: str
    memory_available_bytes: int
    disk_free_bytes: int
    waits: tuple[Wait, ...]
    warnings: tuple[str, ...]
    anew: tuple[Anew, ...]
    repeated: tuple[str, ...]
    """The groups of stages that are one experiment repeated with other seeds or folds."""
    launch: LaunchSpec

    @property
    def processes(self) -> tuple[NodeSpec, ...]:
        """What the first attempt starts on each node."""
        return self.launch.node_specs(attempt=0)

    @property
    def memory_per_rank_bytes(self) -> int | None:
        """The most that any stage needs per rank; None while the model's size is unknown."""
        totals = [stage.memory.total for stage in self.stages if stage.memory]
        return max(totals) if totals else None

    @property
    def disk_bytes(self) -> int | None:
        """Disk that all stages need together; None while the model's size is unknown."""
        totals = [stage.disk.total for stage in self.stages if stage.disk]
        return sum(totals) if totals else None

    def endpoints(self) -> tuple[str, ...]:
        """`host:port` of every rank, in rank order."""
        first = self.launch.start_port
        return tuple(f"{node.host}:{first + local}" for node in self.launch.nodes for local in range(node.nproc))

    def to_json(self) -> dict[str, Any]:
        """The whole plan as JSON values, secrets masked."""
        data = asdict(self)
        masked = replace(self.launch, env=secrets.mask(self.launch.env))
        data["launch"] = asdict(masked)
        for stage, planned in zip(data["stages"], self.stages, strict=True):
            stage["batch"]["text"] = planned.batch.text
            for part in ("memory", "disk"):
                estimate = getattr(planned, part)
                if estimate is not None:
                    stage[part]["total"] = estimate.total
        data["memory_per_rank_bytes"], data["disk_bytes"] = self.memory_per_rank_bytes, self.disk_bytes
        data["endpoints"] = list(self.endpoints())
        data["processes"] = [
            {"node": spec.node, "host": spec.host, "ranks": list(spec.ranks), "argv": list(spec.argv)}
            for spec in masked.node_specs(0)
        ]
        return data


def make_plan(config: Config, topology: Topology, facts: Facts, task: Task) -> Plan:
    """Plans a run. Pure: the same arguments give the same plan. Raises ConfigError for a launch.env that cannot be."""
    threads = threads_per_rank(config, topology, facts, task.threads)
    amp = amp_policy(config.amp, topology.gpus)
    half = bool(topology.gpus) and not amp.startswith("off")
    launch = _make_launch(config, topology, facts, task, threads)
    plan = Plan(
        name=config.name,
        config=task.config_path,
        run_dir=task.run_dir,
        seed=config.seed,
        model=config.model,
        model_facts=facts.model,
        stages=tuple(
            replace(_plan_stage(config, name, topology, facts, half, task), own=own)
            for name, own in _own_settings(config, task.stages).items()
        ),
        world_size=topology.world_size,
        device=_device_text(topology.gpus),
        gpus=topology.gpus,
        cores=facts.cores,
        threads_per_rank=threads,
        amp=amp,
        memory_available_bytes=facts.memory_bytes,
        disk_free_bytes=facts.free_disk_bytes,
        waits=_waits(launch.bounds),
        warnings=(),
        anew=task.anew,
        repeated=repeated_groups(config),
        launch=launch,
    )
    return replace(plan, warnings=_warnings(plan, topology))


def _make_launch(config: Config, topology: Topology, facts: Facts, task: Task, threads: int) -> LaunchSpec:
    extra = dict(config.launch.env)
    if facts.cpu_vendor == "AuthenticAMD" and not topology.gpus:
        # Paddle's CPU wheel carries an MKL that takes a slow path on AMD unless told otherwise
        extra = {"MKL_DEBUG_CPU_TYPE": facts.environment.get("MKL_DEBUG_CPU_TYPE", "5"), **extra}
    return LaunchSpec(
        root=task.root,
        python=task.python,
        run_dir=task.run_dir,
        nodes=topology.nodes,
        worker_args=tuple(part for fault in task.faults for part in ("--chaos", fault)),
        stages=tuple(name for name in task.stages if name not in task.finished),
        resume_from=task.resume_from,
        env=rank_environment(facts.environment, extra, task.root, threads),
        prepare_argv=(task.python, "-m", PREPARE_MODULE, "--run-dir", task.run_dir),
        prepare_env_names=(*PROXY_NAMES, *DOWNLOAD_SECRETS),
        start_port=facts.start_port,
        bounds=_bounds(config.launch),
        restart=RestartPolicy(**config.launch.restart.model_dump()),
        time_limit_s=config.train.time_limit_s,
    )


def _bounds(launch: LaunchConfig) -> Bounds:
    phases = {key.removesuffix("_s"): float(value) for key, value in launch.timeouts.model_dump().items()}
    return Bounds(startup_timeout_s=launch.startup_timeout_s, stop_grace_s=launch.stop_grace_s, phases=phases)


def threads_per_rank(config: Config, topology: Topology, facts: Facts, earlier: int | None) -> int:
    """CPU threads per rank: as configured, else as in the run's earlier launches, else the cores of the node divided by its ranks."""
    if config.launch.threads_per_rank != "auto":
        return config.launch.threads_per_rank
    if earlier is not None:
        return earlier
    return max(1, facts.cores // max(node.nproc for node in topology.nodes))


def amp_policy(amp: AmpConfig, gpus: tuple[Gpu, ...]) -> str:
    """The mixed-precision policy as one line; it starts with `off` where everything stays float32."""
    if not gpus:
        return "off (CPU has no AMP kernels)"
    if amp.level == "off":
        return "off (amp.level: off)"
    level = "O1" if amp.level == "auto" else amp.level
    dtype = amp.dtype
    if dtype == "auto":
        dtype = "bfloat16" if all(_capability(gpu) >= (8, 0) for gpu in gpus) else "float16"
    scaling = " with dynamic loss scaling" if dtype == "float16" else ""
    masters = ", float32 master weights" if level == "O2" else ""
    return f"{level} {dtype}{scaling}{masters}"


def _capability(gpu: Gpu) -> tuple[int, int]:
    major, _, minor = gpu.compute_capability.partition(".")
    return (int(major), int(minor or 0)) if major.isdigit() else (0, 0)


def _device_text(gpus: tuple[Gpu, ...]) -> str:
    if not gpus:
        return "CPU (gloo)"
    names = sorted({gpu.name for gpu in gpus})
    return f"{', '.join(names)} (NCCL)"


def _plan_stage(config: Config, name: str, topology: Topology, facts: Facts, half: bool, task: Task) -> StagePlan:
    stage, model = config.stages[name], facts.model
    batch = batches.divide_batch(stage.batch, topology.world_size, stage.micro_batch)
    known = facts.stages.get(name, StageFacts(0))
    examples = {key: part.num_examples for key, part in known.data_sets.items()}
    steps = batches.count_steps(stage, known.num_examples or None, examples)
    sequences = batch.micro_batch * _most_fractions(stage, known)
    gpu, corpora = bool(topology.gpus), config.stage_corpora(name)
    return StagePlan(
        name=name,
        task=stage.task,
        group=stage.group,
        finished=name in task.finished,
        init=str(config.stage_start(name)),
        start_folder=task.starts.get(name, ""),
        seed=config.stage_seed(name),
        batch=batch,
        steps=steps,
        epochs=stage.epochs,
        lr=stage.lr,
        schedule=stage.schedule,
        warmup=_warmup_text(stage.warmup, steps.warmup_steps),
        max_length=stage.max_length,
        reading=_reading_text(stage) if isinstance(stage, ClassifierStage) else "",
        corpora=corpus_texts.corpora(corpora, known.corpora),
        instances=corpus_texts.instances(stage, corpora) if isinstance(stage, PretrainStage) else "",
        evaluation=_evaluation_text(stage)
        if isinstance(stage, ClassifierStage)
        else corpus_texts.held_out(stage, known),
        groups=parameter_groups(model, stage, known.num_labels) if model else (),
        memory=estimates.rank_memory(model, stage, sequences, known.num_labels, half, gpu) if model else None,
        disk=estimates.stage_disk(config, name, model, known.num_labels, steps.total_steps) if model else None,
        data_sets=_data_sets(stage, known),
        mixing=_mixing_text(stage),
    )


def _own_settings(config: Config, names: Sequence[str]) -> dict[str, tuple[tuple[str, Any], ...]]:
    """Per stage, (key, value) of the settings that are not the same in all stages of its group."""
    settings = {name: stage_settings(config, name) for name in names}
    found = {}
    for name in names:
        group = config.stages[name].group
        fellows = [settings[each] for each in names if group is not None and config.stages[each].group == group]
        keys = dict.fromkeys(key for fellow in fellows for key in fellow)
        differing = [key for key in keys if any(each.get(key) != settings[name].get(key) for each in fellows)]
        found[name] = tuple((key, settings[name].get(key)) for key in differing)
    return found


def _most_fractions(stage: StageBase, known: StageFacts) -> int:
    """Sequences of the longest text; 1 where that is known after preparation."""
    if not isinstance(stage, ClassifierStage) or stage.hierarchical is None:
        return 1
    return known.most_fractions or stage.max_fractions or 1


def _reading_text(stage: ClassifierStage) -> str:
    room = stage.max_length - 2
    if stage.hierarchical is not None:
        most = f"the first {stage.max_fractions}" if stage.max_fractions else "all"
        return f"in fractions of {room} tokens, {most} of them, combined by {stage.hierarchical}"
    head, tail = stage.truncation.head, stage.truncation.tail
    first = room if head is None and tail is None else head if head is not None else room - (tail or 0)
    parts = [f"the first {first}"] * (first > 0) + [f"the last {room - first}"] * (first < room)
    return f"cut to {' and '.join(parts)} tokens"


def _data_sets(stage: StageBase, known: StageFacts) -> tuple[DataSetPlan, ...]:
    if not isinstance(stage, MultitaskStage):
        return ()
    examples = {name: part.num_examples for name, part in known.data_sets.items()} or None
    steps = batches_per_epoch(stage, examples) if examples else {}
    total, wanted = sum(steps.values()), mixing_shares(stage, examples)
    found = []
    for name, data in stage.data_sets.items():
        part = known.data_sets.get(name)
        share = steps[name] / total if steps else wanted.get(name)
        found.append(
            DataSetPlan(
                name=name,
                dataset=data.dataset,
                num_examples=part.num_examples if part else None,
                num_labels=part.num_labels if part else None,
                share=None if share is None else float(share),
                steps_per_epoch=steps.get(name),
            )
        )
    return tuple(found)


def _mixing_text(stage: StageBase) -> str:
    if not isinstance(stage, MultitaskStage):
        return ""
    if isinstance(stage.mixing, str):
        return "in proportion to their sizes" if stage.mixing == "proportional" else "equally often"
    return "by weight: " + ", ".join(f"{name} {stage.mixing[name]:g}" for name in stage.data_sets)


def _warmup_text(warmup: int | float, steps: int | None) -> str:
    if isinstance(warmup, int):
        return f"{warmup:,} steps"
    share = f"{100 * warmup:g} % of all steps"
    return share if steps is None else f"{steps:,} steps ({share})"


def _evaluation_text(stage: ClassifierStage) -> str:
    when = "every epoch" if stage.evaluate_every == "epoch" else f"every {stage.evaluate_every:,} steps"
    stop = f", early stopping after {stage.early_stopping.patience} without improvement" if stage.early_stopping else ""
    mean = "mean " if isinstance(stage, MultitaskStage) else ""
    return f"{when}, best by {mean}{stage.best_metric}{stop}"


def _waits(bounds: Bounds) -> tuple[Wait, ...]:
    return (
        Wait("answer of nvidia-smi", NVIDIA_SMI_TIMEOUT_S),
        Wait("first step of the first stage", bounds.startup_timeout_s),
        Wait("checkpoint after a stop request", bounds.stop_grace_s),
        Wait("other ranks' reports after a failure", bounds.peer_grace_s),
        Wait("SIGTERM until SIGKILL in a clean-up", bounds.kill_grace_s),
        Wait("other ranks after one has ended early", bounds.early_exit_s),
        *(Wait(f"progress of a rank in {PHASE_WORDS[phase]}", seconds) for phase, seconds in bounds.phases.items()),
    )


def _warnings(plan: Plan, topology: Topology) -> tuple[str, ...]:
    found = [topology.note] if topology.note else []
    faults = plan.launch.worker_args[1::2]
    if faults:
        found.append(f"faults on purpose (--chaos): {', '.join(faults)}")
    idle = [stage.name for stage in plan.stages if 0 in stage.batch.per_rank]
    if idle:
        found.append(
            f"stages {', '.join(idle)}: the batch is smaller than the number of ranks; some ranks have nothing to do"
        )
    found += _memory_warnings(plan, max(node.nproc for node in topology.nodes))
    disk, free = plan.disk_bytes, plan.disk_free_bytes
    if disk is not None and free and disk > free:
        found.append(f"disk: checkpoints need up to {disk / 1e9:.1f} GB, {free / 1e9:.1f} GB is free at {plan.run_dir}")
    return tuple(found)


def _memory_warnings(plan: Plan, ranks_per_node: int) -> list[str]:
    needed, free, advice = plan.memory_per_rank_bytes, plan.memory_available_bytes, "set micro_batch lower"
    if needed is None:
        return []
    if not plan.gpus:
        total = needed * ranks_per_node
        short = bool(free) and total > free
        return (
            [f"memory: the ranks need about {total / 1e9:.1f} GB, {free / 1e9:.1f} GB is free; {advice}"]
            if short
            else []
        )
    return [
        f"memory: about {needed / 1e9:.1f} GB per rank, GPU {gpu.index} has {gpu.memory_bytes / 1e9:.1f} GB; {advice}"
        for gpu in plan.gpus
        if needed > gpu.memory_bytes
    ]
