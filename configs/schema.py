"""The schema of a run: frozen objects that every other layer reads.

One class per concern, one docstring line per field (json_schema.py makes it the editor's hover text). Values
are validated here, once; below this layer there are no defaults and no dictionary look-ups. Units are in the
names or in the field's description. What several values must fulfil together is told by each section's
`problems()`; so the loader can report all of it beside other errors.
"""

from __future__ import annotations

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
    "Stage",
    "StageBase",
    "StageName",
    "Strict",
    "Subset",
    "TrainConfig",
    "Truncation",
]

RESERVED_STAGE_NAMES = ("model", "attempts", "errors")
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
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
        for name, stage in self.stages.items():
            if name in RESERVED_STAGE_NAMES:
                yield Problem((f"stages.{name}",), f"'{name}' cannot name a stage; the run directory uses it")
            if stage.init not in (None, "model", *earlier):
                allowed = ", ".join(dict.fromkeys(["model", *earlier]))
                yield Problem((f"stages.{name}.init",), f"'{stage.init}' is no earlier stage; allowed: {allowed}")
            yield from self._head_problems(name)
            yield from self._data_problems(name)
            earlier.append(name)

    def _head_problems(self, name: str) -> Iterator[Problem]:
        stage = self.stages[name]
        if not isinstance(stage, FinetuneStage) or stage.init_head is None:
            return
        keys, init = (f"stages.{name}.init_head", f"stages.{name}.init"), self.stage_init(name)
        source = self.stages.get(init)
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

    def stage_init(self, name: str) -> str:
        """Where a stage's weights start: `model` or the name of an earlier stage."""
        stage = self.stages[name]
        if stage.init is not None:
            return stage.init
        earlier = list(self.stages)[: list(self.stages).index(name)]
        sources = ("pretrain", "multitask") if isinstance(stage, FinetuneStage) else ("pretrain",)
        candidates = [other for other in earlier if self.stages[other].task in sources]
        return candidates[-1] if candidates else "model"
