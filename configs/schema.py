"""The schema of a run: frozen objects that every other layer reads.

One class per concern, one docstring line per field (json_schema.py makes it the editor's hover text). Values
are validated here, once; below this layer there are no defaults and no dictionary look-ups. Units are in the
names or in the field's description. What several values must fulfil together is told by each section's
`problems()`; so the loader can report all of it beside other errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.data import (
    DATASETS,
    GENERIC_DATASETS,
    READY_INSTANCES,
    WITHOUT_LABELS,
    WITHOUT_UNSUP,
    Columns,
    CorpusConfig,
    DataConfig,
    Files,
    Subset,
)
from configs.inits import FORMS, MODEL, Init, parse_init
from configs.section import (
    COLLECT_PROBLEMS,
    NAME_PATTERN,
    STAGE_PATTERN,
    Name,
    PositiveInt,
    Problem,
    StageName,
    Strict,
    Text,
)
from configs.stages import (
    TASKS,
    ClassifierStage,
    EarlyStopping,
    FinetuneStage,
    MultitaskStage,
    PretrainStage,
    Stage,
    StageBase,
    Truncation,
)

__all__ = [
    "COLLECT_PROBLEMS",
    "DATASETS",
    "GENERIC_DATASETS",
    "NAME_PATTERN",
    "READY_INSTANCES",
    "STAGE_PATTERN",
    "TASKS",
    "AmpConfig",
    "ClassifierStage",
    "Columns",
    "Config",
    "CorpusConfig",
    "DataConfig",
    "EarlyStopping",
    "Files",
    "FinetuneStage",
    "LaunchConfig",
    "MultitaskStage",
    "PretrainStage",
    "Problem",
    "RestartConfig",
    "Stage",
    "StageBase",
    "StageName",
    "Strict",
    "Subset",
    "TimeoutsConfig",
    "TrainConfig",
    "Truncation",
]

RESERVED_STAGE_NAMES = ("model", "attempts", "errors", "superseded", "chaos")
DURATION_PATTERN = r"^[0-9]{1,7}[dhms]([0-9]{1,7}[hms])*$"
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Duration = Annotated[str, Field(pattern=DURATION_PATTERN)]
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
EnvValue = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class AmpConfig(Strict):
    """Automatic mixed precision. On CPU it is off, and the screen says so."""

    level: Literal["auto", "off", "O1", "O2"] = "auto"
    """auto: O1 on a GPU that supports it, off on CPU. O2 keeps float32 master weights."""
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    """auto: bfloat16 where the GPU supports it (compute capability 8.0), else float16 with loss scaling."""


class TrainConfig(Strict):
    """How a run records itself, the same for all stages."""

    log_every: PositiveInt = 10
    """Steps between two lines of metrics.jsonl."""
    log_samples: bool = False
    """Write the global sample ids of every step to STAGE/samples.jsonl."""
    checkpoint_every: PositiveInt = 500
    """Steps between two checkpoints; one is also written when a run is stopped."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept per stage, beside the best one."""
    time_limit: PositiveInt | Duration | None = None
    """A launch stops with a checkpoint in time to have ended after this: seconds, or such as 45m, 2h, 1d12h.
    Default: no limit."""

    @property
    def time_limit_s(self) -> float | None:
        """The time limit in seconds; None for no limit."""
        if self.time_limit is None or isinstance(self.time_limit, int):
            return self.time_limit
        parts = re.findall(r"(\d+)([dhms])", self.time_limit)
        return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))

    def problems(self) -> Iterator[Problem]:
        if self.time_limit_s == 0:
            yield Problem(("time_limit",), "must be above 0 seconds")


class TimeoutsConfig(Strict):
    """How long a rank may show no progress, by what it is doing, before it counts as hung, in seconds."""

    import_s: PositiveInt = 300
    """Start of the process and import of Paddle."""
    rendezvous_s: PositiveInt = 300
    """Meeting the other ranks."""
    load_s: PositiveInt = 600
    """Opening data, model and checkpoint of a stage."""
    first_step_s: PositiveInt = 300
    """The first step of a stage."""
    step_s: PositiveInt = 120
    """A step, or one of its micro-batches; where steps are long, 20 times the median of the rank's steps."""
    evaluate_s: PositiveInt = 300
    """One batch of an evaluation."""
    save_s: PositiveInt = 600
    """A sign of life while a checkpoint or model is written."""


class RestartConfig(Strict):
    """What follows on a failure that may pass: a lost rank or peer, a crash in native code, a hang, a rendezvous in vain."""

    when: Literal["transient", "never"] = "transient"
    """transient: start again from the newest intact checkpoint; errors of config, data, disk, memory and code never
    are transient. never: end the run."""
    max_without_progress: PositiveInt = 2
    """Most restarts in a row without a newer checkpoint; then the run ends with exit code 76."""
    backoff_s: Annotated[float, Field(ge=0.0)] = 5.0
    """Seconds before a restart; doubled by each one in a row without a newer checkpoint, up to 5 minutes."""


class LaunchConfig(Strict):
    """How ranks are started and for how long things may take."""

    threads_per_rank: PositiveInt | Literal["auto"] = "auto"
    """CPU threads per rank; auto: cores of the node / its ranks. Kept on resume, since it changes the last
    bits."""
    env: dict[EnvName, EnvValue] = Field(default={})
    """Extra environment variables for the ranks."""
    startup_timeout_s: PositiveInt = 600
    """Most seconds from start to the first step of the first stage."""
    stop_grace_s: PositiveInt = 60
    """Seconds the ranks get to write a checkpoint after a stop request."""
    timeouts: TimeoutsConfig = TimeoutsConfig()
    """When a rank counts as hung."""
    restart: RestartConfig = RestartConfig()
    """What follows on a failure."""


class Config(Strict):
    """One run: a model, data and the stages that it goes through in order."""

    name: Name
    """Name of the run: its directory under runs/. Letters, digits, '.', '_' and '-'."""
    model: Text
    """A PaddleNLP model name, all-minilm-l6-v2 (comes with the environment), or a Hugging Face folder."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seed of sample order, masking, dropout, new heads and splits."""
    data: DataConfig | None = None
    """Where the text comes from; needed by every stage that brings no data of its own."""
    stages: dict[StageName, Stage]
    """The stages by name, run in the order in which they are written."""
    amp: AmpConfig = AmpConfig()
    """Automatic mixed precision."""
    train: TrainConfig = TrainConfig()
    """Logging and checkpoints."""
    launch: LaunchConfig = LaunchConfig()
    """How ranks are started."""

    def problems(self) -> Iterator[Problem]:
        if not self.stages:
            yield Problem(("stages",), "at least one stage is needed, such as finetune: {epochs: 4}")
        earlier: list[str] = []
        for name in self.stages:
            if name in RESERVED_STAGE_NAMES:
                yield Problem((f"stages.{name}",), f"'{name}' cannot name a stage; the run directory uses it")
            yield from self._init_problems(name, earlier)
            yield from self._head_problems(name)
            yield from self._data_problems(name)
            earlier.append(name)

    def _head_problems(self, name: str) -> Iterator[Problem]:
        stage = self.stages[name]
        if not isinstance(stage, FinetuneStage) or stage.init_head is None:
            return
        keys = (f"stages.{name}.init_head", f"stages.{name}.init")
        init = self.stage_start(name)
        if init.run is not None:
            return  # what it has is known when its folder is read
        source = self.stages.get(init.stage or "")
        if not isinstance(source, MultitaskStage):
            yield Problem(keys, f"stage '{name}' starts from '{init}', which is no multi-task stage")
        elif stage.init_head not in source.data_sets:
            allowed = ", ".join(source.data_sets)
            yield Problem(keys, f"'{stage.init_head}' is no data set of stage '{init}'; allowed: {allowed}")
        elif stage.classifier_input != source.classifier_input:
            seen = (*keys, *(f"stages.{name}.{key}" for key in ("layers", "pooling", "hierarchical", "classifier")))
            yield Problem(
                seen, f"the classifiers of stage '{init}' see other features; use its layers, pooling and hierarchical"
            )

    def _data_problems(self, name: str) -> Iterator[Problem]:
        stage = self.stages[name]
        if isinstance(stage, MultitaskStage):
            for key, data in stage.data_sets.items():
                yield from self._label_problems(name, data, f"stages.{name}.data_sets.{key}")
            yield from self._stopping_problems(name, stage, list(stage.data_sets.values()), f"stages.{name}.data_sets")
            return
        if isinstance(stage, PretrainStage) and stage.corpora:
            yield from self._corpus_problems(name, stage)
            return
        data_or_none = stage.data or self.data
        if data_or_none is None:
            message = f"missing, and stage '{name}' has no data of its own; give data or stages.{name}.data"
            yield Problem(("data", f"stages.{name}.data"), message)
            return
        place = "data" if stage.data is None else f"stages.{name}.data"
        if isinstance(stage, FinetuneStage):
            yield from self._label_problems(name, data_or_none, place)
            yield from self._stopping_problems(name, stage, [data_or_none], f"{place}.validation")
        else:
            yield from self._corpus_problems(name, stage)

    def _label_problems(self, name: str, data: DataConfig, place: str) -> Iterator[Problem]:
        if data.dataset in WITHOUT_LABELS:
            what = f"dataset '{data.dataset}' has no labels"
            message = f"{what}, and stage '{name}' fine-tunes; give it a labelled data set"
            yield Problem((f"{place}.dataset", f"stages.{name}.task"), message)
        elif data.columns.label is None:
            message = f"null means no labels, and stage '{name}' fine-tunes; name the column of the label"
            yield Problem((f"{place}.columns.label", f"stages.{name}.task"), message)
        stage = self.stages[name]
        if isinstance(stage, ClassifierStage) and stage.hierarchical is not None and data.columns.text_pair is not None:
            message = "fractions are for single texts; leave it out for pairs, or set text_pair: null"
            yield Problem((f"stages.{name}.hierarchical", f"{place}.columns.text_pair"), message)

    def _stopping_problems(
        self, name: str, stage: ClassifierStage, data: list[DataConfig], place: str
    ) -> Iterator[Problem]:
        none = all(each.validation == 0 and each.files.validation is None for each in data)
        if stage.early_stopping is not None and none:
            message = f"needs validation rows, and {place} {'is 0' if len(data) == 1 else 'have none'}"
            yield Problem((f"stages.{name}.early_stopping", place), message)

    def _corpus_problems(self, name: str, stage: PretrainStage) -> Iterator[Problem]:
        place = "data" if stage.data is None else f"stages.{name}.data"
        for number, corpus in enumerate(self.stage_corpora(name)):
            here = f"stages.{name}.corpora" if stage.corpora else f"stages.{name}"
            which = f"corpora[{number}]: " if stage.corpora else ""
            if corpus.splits == ("unsup",) and corpus.dataset in WITHOUT_UNSUP:
                message = f"{which}dataset '{corpus.dataset}' has no split 'unsup'; allowed: [train]"
                keys = (here,) if stage.corpora else (f"{here}.splits", f"{place}.dataset")
                yield Problem(keys, message)
            if corpus.dataset == READY_INSTANCES and not stage.corpora and stage.data is None:
                for problem in stage.ready_problems():
                    yield Problem((f"stages.{name}.{problem.keys[0]}", "data.dataset"), problem.message)

    def stage_corpora(self, name: str) -> tuple[CorpusConfig, ...]:
        """The corpora of a pre-training stage: its own, else the data section that it uses."""
        stage = self.stages[name]
        if not isinstance(stage, PretrainStage):
            return ()
        return stage.corpora or (CorpusConfig.whole(self.stage_data(name), stage.splits),)

    def stage_data(self, name: str) -> DataConfig:
        """The data section of a stage with one data set: its own, else the top-level one."""
        stage = self.stages[name]
        data = None if isinstance(stage, MultitaskStage) else stage.data or self.data
        if data is None:
            raise AssertionError(f"stage {name} has no single data section")
        return data

    def labelled_data(self) -> tuple[DataConfig, ...]:
        """The data sections of all stages that train classifiers, in order."""
        found: list[DataConfig] = []
        for name, stage in self.stages.items():
            if isinstance(stage, MultitaskStage):
                found += stage.data_sets.values()
            elif isinstance(stage, FinetuneStage):
                found.append(self.stage_data(name))
        return tuple(found)

    def stage_seed(self, name: str) -> int:
        """Seed of everything random in a stage: its own, else the run's."""
        seed = self.stages[name].seed
        return self.seed if seed is None else seed

    def stage_init(self, name: str) -> str:
        """Where a stage's weights start, as it is written (configs/inits.py), or the default."""
        stage = self.stages[name]
        return stage.init or self._nearest_pretraining(name) or MODEL

    def stage_start(self, name: str) -> Init:
        """The same with STAGE@0 of this run followed to what that stage starts from."""
        init = parse_init(self.stage_init(name)) or Init()
        return self.stage_start(init.stage) if init.stage and init.run is None and init.step == 0 else init

    def _nearest_pretraining(self, name: str) -> str | None:
        earlier = list(self.stages)[: list(self.stages).index(name)]
        sources = ("pretrain", "multitask") if isinstance(self.stages[name], FinetuneStage) else ("pretrain",)
        return next((other for other in reversed(earlier) if self.stages[other].task in sources), None)

    def members(self, group: str) -> tuple[str, ...]:
        """The stages of a group, in order."""
        return tuple(name for name, stage in self.stages.items() if stage.group == group)

    def _init_problems(self, name: str, earlier: list[str]) -> Iterator[Problem]:
        stage, keys = self.stages[name], (f"stages.{name}.init",)
        if stage.init is None:
            nearest = self._nearest_pretraining(name)
            rivals = self.members(self.stages[nearest].group or "") if nearest else ()
            if len(rivals) > 1:
                message = f"missing; it could start from any of {_listed(rivals)}; name one of them, or model"
                yield Problem(keys, message)
            return
        init = parse_init(stage.init)
        if init is None:
            yield Problem(keys, f"'{stage.init}' names no weights; allowed: {FORMS}")
        elif init.run == self.name:
            yield Problem(keys, f"'{init.run}' is this run; name its stage alone: {stage.init.partition('/')[2]}")
        elif init.run is None and init.stage is not None and init.stage in earlier:
            yield from self._step_problems(name, init.stage, init.step)
        elif init.run is None and not init.is_model and init.stage not in earlier:
            rivals = tuple(each for each in earlier if self.stages[each].swept_from == init.stage) or self.members(
                str(init.stage)
            )
            if rivals:
                message = f"'{init.stage}' stands for {len(rivals)} stages; name one of them: {_listed(rivals)}"
            else:
                allowed = _listed(tuple(dict.fromkeys([MODEL, *earlier])))
                message = f"'{init.stage}' is no earlier stage; allowed: {allowed}"
            yield Problem(keys, message)

    def _step_problems(self, name: str, source: str, step: int | None) -> Iterator[Problem]:
        """What keeps an intermediate model of a stage of this run from being there when it is needed."""
        stage, key = self.stages[source], f"stages.{name}.init"
        if not step:
            return
        if not isinstance(stage, PretrainStage):
            yield Problem((key,), f"stage '{source}' keeps no models of single steps; only pre-training stages do")
        elif stage.max_steps is not None and step > stage.max_steps:
            message = f"step {step} lies beyond the end of stage '{source}' ({stage.max_steps} steps)"
            yield Problem((key, f"stages.{source}.max_steps"), message)
        elif stage.save_model_every is None or step % stage.save_model_every:
            kept = f"every {stage.save_model_every} steps" if stage.save_model_every else "none"
            message = f"stage '{source}' keeps no model of step {step} (save_model_every: {kept})"
            yield Problem((key, f"stages.{source}.save_model_every"), message)


def _listed(names: tuple[str, ...]) -> str:
    """At most six names."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
