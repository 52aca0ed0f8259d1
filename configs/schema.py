"""The schema of a run: frozen objects that every other layer reads.

One class per concern, one docstring line per field (json_schema.py makes it the editor's hover text). Values
are validated here, once; below this layer there are no defaults and no dictionary look-ups. Units are in the
names or in the field's description. What several values must fulfil together is told by each section's
`problems()`; so the loader can report all of it beside other errors.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from typing_extensions import Self

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
STAGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
RESERVED_STAGE_NAMES = ("model", "attempts", "errors")
DATASETS = ("trec", "imdb", "ag_news", "python_docs", "tsv", "csv", "jsonl", "text")
GENERIC_DATASETS = ("tsv", "csv", "jsonl", "text")
WITHOUT_UNSUP = ("trec", "ag_news")

Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
StageName = Annotated[str, Field(pattern=STAGE_PATTERN)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
EnvValue = Annotated[str, Field(pattern=r"^[^\x00]*$")]
PositiveInt = Annotated[int, Field(ge=1)]
Column = Text | Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
BlockList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Warmup = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0.0, lt=1.0)]

COLLECT_PROBLEMS = "collect_problems"
"""Key of the validation context with which `problems()` is left to the caller."""


class Problem(NamedTuple):
    """Values that do not go together: the dotted keys that take part (the first is to blame) and what is
    wrong."""

    keys: tuple[str, ...]
    message: str


class Strict(BaseModel):
    """Base of every section: frozen, unknown keys refused, no silent conversion between types, no NaN or
    infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def problems(self) -> Iterator[Problem]:
        """What is wrong between values of this section that are each valid alone; keys are relative to the
        section."""
        return iter(())

    @model_validator(mode="after")
    def _values_go_together(self, info: ValidationInfo) -> Self:
        if not (info.context and info.context.get(COLLECT_PROBLEMS)):
            found = [f"{problem.keys[0]}: {problem.message}" for problem in self.problems()]
            if found:
                raise ValueError("; ".join(found))
        return self


class Columns(Strict):
    """Which columns of a table hold what: a header's name, or a 0-based number where the file has no
    header."""

    text: Column = "text"
    """The text to classify."""
    text_pair: Column | None = None
    """A second text for pair classification."""
    label: Column | None = "label"
    """The label; null for files without labels (corpora)."""

    def problems(self) -> Iterator[Problem]:
        if self.label == self.text:
            yield Problem(("label", "text"), f"{self.label!r} is the column of the text as well")
        if self.text_pair is not None and self.text_pair in (self.text, self.label):
            yield Problem(("text_pair", "text", "label"), f"{self.text_pair!r} is used for something else as well")


class Files(Strict):
    """File names of a generic data set, relative to `data.path`."""

    train: Text | None = None
    """Training rows."""
    test: Text | None = None
    """Test rows; never used to choose a checkpoint."""
    validation: Text | None = None
    """Validation rows; without it they are split off the training rows (`data.validation`)."""
    unsup: Text | None = None
    """Texts without labels, for further pre-training."""


class Subset(Strict):
    """Train or test on a part of the data: a stratified, seeded sample of n rows per split."""

    train: PositiveInt | None = None
    """Rows kept of the training split, before validation rows are split off."""
    test: PositiveInt | None = None
    """Rows kept of the test split."""
    unsup: PositiveInt | None = None
    """Texts kept of the split without labels."""


class DataConfig(Strict):
    """Where the text comes from."""

    dataset: Literal["trec", "imdb", "ag_news", "python_docs", "tsv", "csv", "jsonl", "text"]
    """A known data set, or a generic format: tsv, csv, jsonl (named columns), text (one sentence per line,
    blank line between documents)."""
    path: Text | None = None
    """A local copy: file, folder or archive (never needs unpacking). Without it a public data set is
    downloaded and its sha256 checked."""
    labels: Literal["coarse", "fine"] = "coarse"
    """Which labels TREC uses: 6 coarse or 50 fine classes."""
    validation: Fraction | PositiveInt = 0.1
    """Part (below 1) or number of training rows held out, stratified and seeded, to choose the best
    checkpoint. 0: none."""
    subset: Subset = Subset()
    """Use only a part of the rows."""
    files: Files = Files()
    """Generic formats: the file of each split."""
    columns: Columns = Columns()
    """Generic tables: which column holds what."""
    header: bool = True
    """Generic tables: the first row names the columns."""
    encoding: Text = "utf-8"
    """Generic formats: the text encoding of the files."""

    def problems(self) -> Iterator[Problem]:
        if self.dataset in GENERIC_DATASETS:
            yield from self._generic_problems()
        else:
            for key in ("files", "columns", "header", "encoding"):
                if getattr(self, key) != DataConfig.model_fields[key].default:
                    names = ", ".join(GENERIC_DATASETS)
                    yield Problem(
                        (key, "dataset"),
                        f"only for generic formats ({names}), not for dataset '{self.dataset}'",
                    )
        if self.labels == "fine" and self.dataset != "trec":
            yield Problem(("labels", "dataset"), f"'fine' exists only for dataset 'trec', not for '{self.dataset}'")

    def _generic_problems(self) -> Iterator[Problem]:
        if self.path is None:
            yield Problem(("path", "dataset"), f"missing; dataset '{self.dataset}' needs the file or folder to read")
        if not _is_text_encoding(self.encoding):
            yield Problem(("encoding",), f"'{self.encoding}' is no known text encoding, such as utf-8 or latin-1")
        if not self.header and self.dataset in ("tsv", "csv"):
            for key in Columns.model_fields:
                column = getattr(self.columns, key)
                if isinstance(column, str):
                    message = f"'{column}' is a name; with header: false a column is a number, 0 for the first"
                    yield Problem((f"columns.{key}", "header"), message)


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
        codecs.lookup(name)
    except LookupError:
        return False
    return True


class Truncation(Strict):
    """Which tokens of a long single text are kept; L = max_length - 2 of them."""

    head: Annotated[int, Field(ge=0)] | None = None
    """Keep the first `head` tokens and the last L - head. Both keys unset: the first L."""
    tail: Annotated[int, Field(ge=0)] | None = None
    """Keep the last `tail` tokens and the first L - tail."""

    def problems(self) -> Iterator[Problem]:
        if self.head is not None and self.tail is not None:
            yield Problem(("head", "tail"), "give head or tail, not both; the other part is max_length - 2 minus it")


class AmpConfig(Strict):
    """Automatic mixed precision. On CPU it is off, and the screen says so."""

    level: Literal["auto", "off", "O1", "O2"] = "auto"
    """auto: O1 on a GPU that supports it, off on CPU. O2 keeps float32 master weights."""
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    """auto: bfloat16 where the GPU supports it (compute capability 8.0), else float16 with loss scaling."""


class StageBase(Strict):
    """What every stage has: optimisation, batch, schedule and where its weights start."""

    init: Text | None = None
    """Where the weights start: `model` (the top-level model) or the name of an earlier stage. Default: the
    nearest earlier pre-training stage, else the model."""
    data: DataConfig | None = None
    """This stage's own data; default: the top-level data."""
    epochs: PositiveInt | None = None
    """Passes over the training data. Give epochs or max_steps."""
    max_steps: PositiveInt | None = None
    """Optimizer steps in all."""
    batch: PositiveInt = 32
    """Sequences per optimizer step over all ranks; ranks and accumulation divide it."""
    micro_batch: PositiveInt | None = None
    """Most sequences that one rank computes at once; more are accumulated. Default: no limit."""
    max_length: Annotated[int, Field(ge=8, le=4096)] = 128
    """Most tokens per sequence, special tokens included."""
    lr: Annotated[float, Field(gt=0.0)] = 2e-5
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant", "poly"] = "linear"
    """Decay after warm-up: linear and cosine end at 0, poly follows (1-x)^poly_power, constant keeps the
    peak."""
    warmup: Warmup = 0.1
    """Steps (integer) or proportion of all steps (below 1) of linear warm-up."""
    poly_power: Annotated[float, Field(gt=0.0)] = 1.0
    """Power of the poly schedule."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Decoupled weight decay; never on biases and LayerNorm."""
    adam_beta1: Fraction = 0.9
    """First-moment decay of AdamW."""
    adam_beta2: Fraction = 0.999
    """Second-moment decay of AdamW."""
    adam_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    """Denominator constant of AdamW."""
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    """Global gradient norm above which gradients are scaled down; 0: off."""
    dropout: Fraction | None = None
    """Hidden and attention dropout; default: the model's own."""
    ema: Fraction | None = None
    """Decay of an exponential moving average of the weights, used to evaluate and saved as the result.
    Default: none."""

    def problems(self) -> Iterator[Problem]:
        if self.epochs is None and self.max_steps is None:
            yield Problem(("epochs", "max_steps"), "missing; give epochs or max_steps")
        if self.epochs is not None and self.max_steps is not None:
            message = f"give epochs ({self.epochs}) or max_steps ({self.max_steps}), not both"
            yield Problem(("max_steps", "epochs"), message)
        if isinstance(self.warmup, int) and self.max_steps is not None and self.warmup >= self.max_steps:
            yield Problem(("warmup", "max_steps"), f"{self.warmup} steps must be below max_steps {self.max_steps}")
        if self.schedule != "poly" and self.poly_power != 1.0:
            yield Problem(("poly_power", "schedule"), f"only for schedule 'poly', not for '{self.schedule}'")


class PretrainStage(StageBase):
    """Further pre-training: masked language model, with or without next-sentence prediction."""

    task: Literal["pretrain"]
    """What the stage does; default: the stage's name."""
    splits: tuple[Literal["train", "unsup"], ...] = Field(default=("train", "unsup"), strict=False)
    """Which splits of the data are the corpus (those that exist); the test split never is."""
    nsp: bool = True
    """Train next-sentence prediction beside the masked language model."""
    mask_probability: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the non-special tokens that is predicted."""
    max_predictions: PositiveInt = 20
    """Most predicted tokens per sequence."""
    whole_word: bool = False
    """Mask whole words instead of single word pieces."""
    short_sequence_probability: Fraction = 0.1
    """Probability of a shorter random target length."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if not self.splits or len(set(self.splits)) != len(self.splits):
            yield Problem(("splits",), "name at least one split, each once: train, unsup")


class EarlyStopping(Strict):
    """Stop when the validation metric no longer improves."""

    patience: PositiveInt
    """Evaluations in a row without improvement before the stage ends."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """Smallest change that counts as an improvement."""


class FinetuneStage(StageBase):
    """Fine-tuning: a classifier on the encoder, evaluated on the test split at the end."""

    task: Literal["finetune"]
    """What the stage does; default: the stage's name."""
    truncation: Truncation = Truncation()
    """Which tokens of a long text are kept; pairs drop from the longer side."""
    layers: Literal["pooler", "all"] | BlockList = "pooler"
    """What feeds the classifier: the tanh pooler, the raw [CLS] state of all blocks, or of a list of blocks
    (0-based)."""
    pooling: Literal["concat", "mean", "max"] = "concat"
    """How several layers' [CLS] vectors are combined."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Learning rate of encoder block i of N is lr * layer_decay^(N-1-i); embeddings, pooler and classifier
    keep lr."""
    evaluate_every: PositiveInt | Literal["epoch"] = "epoch"
    """When the validation split is evaluated: every n steps, or at the end of each epoch."""
    best_metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    """The validation metric that chooses the best checkpoint."""
    early_stopping: EarlyStopping | None = None
    """Stop early; default: never."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        room = self.max_length - 2
        for key in ("head", "tail"):
            part = getattr(self.truncation, key)
            if part is not None and part >= room:
                hint = f"leave truncation out to keep the first {room}"
                message = f"{part} must be below max_length - 2 = {room}; {hint}"
                yield Problem((f"truncation.{key}", "max_length"), message)
        if isinstance(self.layers, tuple) and len(set(self.layers)) != len(self.layers):
            yield Problem(("layers",), f"{list(self.layers)} names a block twice")
        if self.layers == "pooler" and self.pooling != "concat":
            message = f"'{self.pooling}' combines several layers; with layers: pooler there is only one"
            yield Problem(("pooling", "layers"), message)


Stage = Annotated[PretrainStage | FinetuneStage, Field(discriminator="task")]
TASKS = ("pretrain", "finetune")


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
    env: dict[EnvName, EnvValue] = {}
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
