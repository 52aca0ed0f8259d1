"""The schema of stages: what is trained, with which optimisation, batch and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.data import DataConfig
from configs.section import Fraction, PositiveInt, Problem, StageName, Strict, Text

BlockList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Warmup = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0.0, lt=1.0)]


class Truncation(Strict):
    """Which tokens of a long single text are kept; L = max_length - 2 of them."""

    head: Annotated[int, Field(ge=0)] | None = None
    """Keep the first `head` tokens and the last L - head. Both keys unset: the first L."""
    tail: Annotated[int, Field(ge=0)] | None = None
    """Keep the last `tail` tokens and the first L - tail."""

    def problems(self) -> Iterator[Problem]:
        if self.head is not None and self.tail is not None:
            yield Problem(("head", "tail"), "give head or tail, not both; the other part is max_length - 2 minus it")


class StageBase(Strict):
    """What every stage has: optimisation, batch, schedule and where its weights start."""

    init: Text | None = None
    """Where the weights start: `model` (the top-level model), an earlier STAGE, or RUN/STAGE of another run; each
    also as it was at a step (STAGE@20000; @0: what that stage started from). Default: the nearest earlier
    pre-training stage, else the model."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of everything random in this stage; default: the run's seed."""
    group: StageName | None = None
    """Stages with the same group are summed up together, as the members of a sweep are."""
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
