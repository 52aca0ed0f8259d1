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

from configs.data import DATASETS, GENERIC_DATASETS, WITHOUT_UNSUP, Columns, DataConfig, Files, Subset
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
from configs.stages import TASKS, EarlyStopping, FinetuneStage, PretrainStage, Stage, StageBase, Truncation

__all__ = [
    "COLLECT_PROBLEMS",
    "DATASETS",
    "GENERIC_DATASETS",
    "NAME_PATTERN",
    "STAGE_PATTERN",
    "TASKS",
    "AmpConfig",
    "Columns",
    "Config",
    "DataConfig",
    "EarlyStopping",
    "Files",
    "FinetuneStage",
    "LaunchConfig",
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

RESERVED_STAGE_NAMES = ("model", "attempts", "errors")
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
    data: DataConfig
    """Where the text comes from."""
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
        for name, stage in self.stages.items():
            if name in RESERVED_STAGE_NAMES:
                yield Problem((f"stages.{name}",), f"'{name}' cannot name a stage; the run directory uses it")
            if stage.init not in (None, "model", *earlier):
                allowed = ", ".join(dict.fromkeys(["model", *earlier]))
                yield Problem((f"stages.{name}.init",), f"'{stage.init}' is no earlier stage; allowed: {allowed}")
            yield from self._data_problems(name)
            earlier.append(name)

    def _data_problems(self, name: str) -> Iterator[Problem]:
        stage, data = self.stages[name], self.stage_data(name)
        place = "data" if stage.data is None else f"stages.{name}.data"
        if isinstance(stage, PretrainStage):
            if stage.splits == ("unsup",) and data.dataset in WITHOUT_UNSUP:
                message = f"dataset '{data.dataset}' has no split 'unsup'; allowed: [train]"
                yield Problem((f"stages.{name}.splits", f"{place}.dataset"), message)
            return
        if data.dataset == "text":
            message = f"dataset 'text' has no labels, and stage '{name}' fine-tunes; give it a labelled data set"
            yield Problem((f"{place}.dataset", f"stages.{name}.task"), message)
        elif data.columns.label is None:
            message = f"null means no labels, and stage '{name}' fine-tunes; name the column of the label"
            yield Problem((f"{place}.columns.label", f"stages.{name}.task"), message)
        if stage.early_stopping is not None and data.validation == 0 and data.files.validation is None:
            message = f"needs validation rows, and {place}.validation is 0"
            yield Problem((f"stages.{name}.early_stopping", f"{place}.validation"), message)

    def stage_data(self, name: str) -> DataConfig:
        """The data section that a stage uses: its own, else the top-level one."""
        return self.stages[name].data or self.data

    def stage_init(self, name: str) -> str:
        """Where a stage's weights start: `model` or the name of an earlier stage."""
        stage = self.stages[name]
        if stage.init is not None:
            return stage.init
        earlier = list(self.stages)[: list(self.stages).index(name)]
        pretrained = [other for other in earlier if self.stages[other].task == "pretrain"]
        return pretrained[-1] if pretrained else "model"
