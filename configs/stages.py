"""The schema of stages: what is trained, with which optimisation, batch and schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from configs.data import READY_INSTANCES, CorpusConfig, CorpusSplits, DataConfig, split_problems
from configs.section import Fraction, PositiveInt, Problem, StageName, Strict, Text

BlockList = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
RateList = Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(strict=False, min_length=1)]
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
    pre-training stage (for fine-tuning, also a multi-task stage), else the model."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of everything random in this stage; default: the run's seed."""
    group: StageName | None = None
    """Stages with the same group are summed up together, as the members of a sweep are."""
    swept_from: StageName | None = None
    """The stage whose `sweep` stands for this one; the launcher writes it into the run's own config."""
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
    schedule: Literal["linear", "cosine", "constant", "poly", "bert_adam"] = "linear"
    """Decay after warm-up: linear and cosine end at 0, poly follows (1-x)^poly_power, constant keeps the
    peak. bert_adam is the original code's: x/w in warm-up, then 1-x, where x = step/total and w is the warm-up's
    share of all steps. Its faithful replication is schedule: bert_adam, bias_correction: false,
    clip_per_parameter: true, with lr and plain_rate both given."""
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
    bias_correction: bool = True
    """Adam's correction of the moments for their start at 0; the original code has none (false)."""
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    """Global gradient norm above which gradients are scaled down; 0: off."""
    clip_per_parameter: bool = False
    """Compare each parameter's own gradient norm with clip, as the original code does, not the global one."""
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
        if self.clip_per_parameter and self.clip == 0:
            yield Problem(("clip_per_parameter", "clip"), "nothing is clipped with clip: 0; give the norm")


class PretrainStage(StageBase):
    """Further pre-training: masked language model, with or without next-sentence prediction."""

    task: Literal["pretrain"]
    """What the stage does; default: the stage's name."""
    data: DataConfig | None = None
    """This stage's own data; default: the top-level data."""
    splits: CorpusSplits = Field(default=("train", "unsup"), strict=False)
    """Which splits of the data are the corpus (those that exist); the test split never is."""
    corpora: tuple[CorpusConfig, ...] = Field(default=(), strict=False)
    """Several corpora trained on together, each a data section with `weight` and `splits`. Default: the data
    section of the stage or the run."""
    leave_out_tests: bool = False
    """Leave out documents that also stand in a test split of the corpora or of the run's fine-tuning stages."""
    validation: Fraction | PositiveInt = 0.0
    """Part (below 1) or number of documents held out, seeded, to evaluate on. 0: none."""
    evaluate_every: PositiveInt | Literal["epoch"] = "epoch"
    """When the held-out documents are evaluated: every n steps, or at the end of each epoch."""
    save_model_every: PositiveInt | None = None
    """Keep a model folder STAGE/models/step-N of every n-th step, to fine-tune from. Default: only the last."""
    nsp: bool = True
    """Train next-sentence prediction beside the masked language model."""
    single_sentences: Literal["random_next", "alone"] = "random_next"
    """With nsp, a chunk of one sentence gets a random second part (Google's recipe), or stands alone and is
    not asked for its next sentence."""
    packing: bool = False
    """Without nsp: fill every sequence with whole sentences of consecutive documents, [SEP] behind each."""
    dupe_factor: PositiveInt | None = None
    """Draw pairs and masks n times before training and repeat them; an epoch is all n passes (the original's
    static data). Default: fresh ones every epoch."""
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
        yield from split_problems(self)
        if self.packing and self.nsp:
            yield Problem(("packing", "nsp"), "a packed sequence has no second part to predict; set nsp: false")
        if self.packing:
            yield from self._unused(("short_sequence_probability",), "packing", "packing fills every sequence")
        if not self.nsp:
            yield from self._unused(("single_sentences",), "nsp", "without nsp there are no pairs")
        if self.validation == 0:
            yield from self._unused(("evaluate_every",), "validation", "no documents are held out (validation: 0)")
        yield from self._corpora_problems()

    def _corpora_problems(self) -> Iterator[Problem]:
        if self.corpora and self.data is not None:
            yield Problem(("corpora", "data"), "give corpora or data, not both")
        if self.corpora:
            yield from self._unused(("splits",), "corpora", "each of the corpora has its own splits")
        sections = self.corpora or ((self.data,) if self.data is not None else ())
        ready = [section.dataset == READY_INSTANCES for section in sections]
        if any(ready) and not all(ready):
            message = f"'{READY_INSTANCES}' is masked already and cannot be mixed with text"
            yield Problem(("corpora",), message)
        elif any(ready):
            yield from self.ready_problems()

    def ready_problems(self) -> Iterator[Problem]:
        """Keys that shape instances, which a data set of ready ones leaves without effect."""
        shaping = ("mask_probability", "max_predictions", "whole_word", "short_sequence_probability", "packing")
        others = ("dupe_factor", "single_sentences", "leave_out_tests")
        reason = f"the instances of '{READY_INSTANCES}' are used as they are"
        yield from self._unused((*shaping, *others), "corpora" if self.corpora else "data", reason)

    def _unused(self, keys: tuple[str, ...], cause: str, reason: str) -> Iterator[Problem]:
        for key in keys:
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                yield Problem((key, cause), f"has no effect: {reason}; leave it out")


class EarlyStopping(Strict):
    """Stop when the validation metric no longer improves."""

    patience: PositiveInt
    """Evaluations in a row without improvement before the stage ends."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """Smallest change that counts as an improvement."""


class ClassifierStage(StageBase):
    """What every stage with a classifier has: which tokens it reads, what it is built on, which parts learn how
    fast, and how validation rows choose the best checkpoint."""

    truncation: Truncation = Truncation()
    """Which tokens of a long text are kept; pairs drop from the longer side."""
    hierarchical: Literal["mean", "max", "attention"] | None = None
    """Read long texts whole: cut into fractions of max_length - 2 tokens, each encoded on its own; their feature
    vectors are combined by mean, max or learned self-attention. Batch sizes then count texts. null: truncate."""
    max_fractions: PositiveInt | None = None
    """With hierarchical: read only the first fractions of a text. Default: all."""
    layers: Literal["pooler", "all"] | BlockList = "pooler"
    """What feeds the classifier: the tanh pooler, the raw [CLS] state of all blocks, or of a list of blocks
    (0-based)."""
    pooling: Literal["concat", "mean", "max"] = "concat"
    """How several layers' [CLS] vectors are combined."""
    classifier: Literal["linear", "bilstm"] = "linear"
    """The head: linear on the features, or a bidirectional LSTM with self-attention over the last block's token
    states (with freeze: encoder the paper's feature-based row)."""
    lstm_size: PositiveInt = 256
    """Units of the bilstm head per direction."""
    freeze: Literal["none", "embeddings", "encoder"] | PositiveInt = "none"
    """What is not trained: the embeddings, the encoder with them, or the embeddings and the first n blocks. Dropout
    stays on in frozen parts while training."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Learning rate of encoder block i of N is lr * layer_decay^(N-1-i); embeddings, pooler and classifier
    keep lr."""
    decay_embeddings: bool = False
    """With layer_decay: the embeddings get lr * layer_decay^N."""
    layer_rates: RateList | None = None
    """Peak learning rate of every encoder block, the lowest first; instead of layer_decay."""
    rate_bands: Annotated[float, Field(gt=1.0)] | None = None
    """Learning rate lr/f in the lowest third of the blocks, lr in the middle, lr*f in the top third; instead of
    layer_decay (paper: 2.6). Block i of N is in third floor(3i/N), counted from 0."""
    plain_rate: Annotated[float, Field(gt=0.0)] | None = None
    """Peak learning rate of embeddings (unless decayed), pooler and classifier; the blocks keep theirs.
    Default: lr."""
    evaluate_every: PositiveInt | Literal["epoch"] = "epoch"
    """When the validation split is evaluated: every n steps, or at the end of each epoch."""
    best_metric: Literal["accuracy", "macro_f1", "loss"] = "accuracy"
    """The validation metric that chooses the best checkpoint."""
    early_stopping: EarlyStopping | None = None
    """Stop early; default: never."""

    @property
    def classifier_input(self) -> tuple[object, ...]:
        """What a classifier was trained on: stages that agree in it can take over each other's."""
        return self.layers, self.pooling, self.hierarchical, self.classifier

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        yield from self._reading_problems()
        yield from self._head_problems()
        yield from self._rate_problems()

    def _reading_problems(self) -> Iterator[Problem]:
        room = self.max_length - 2
        for key in ("head", "tail"):
            part = getattr(self.truncation, key)
            if part is not None and part >= room:
                hint = f"leave truncation out to keep the first {room}"
                message = f"{part} must be below max_length - 2 = {room}; {hint}"
                yield Problem((f"truncation.{key}", "max_length"), message)
            if part is not None and self.hierarchical is not None:
                message = "a hierarchical text is not truncated; leave one of them out"
                yield Problem(("hierarchical", f"truncation.{key}"), message)
        if self.max_fractions is not None and self.hierarchical is None:
            yield Problem(("max_fractions", "hierarchical"), "only with hierarchical: mean, max or attention")

    def _head_problems(self) -> Iterator[Problem]:
        if isinstance(self.layers, tuple) and len(set(self.layers)) != len(self.layers):
            yield Problem(("layers",), f"{list(self.layers)} names a block twice")
        if self.layers == "pooler" and self.pooling != "concat":
            message = f"'{self.pooling}' combines several layers; with layers: pooler there is only one"
            yield Problem(("pooling", "layers"), message)
        if self.classifier == "bilstm":
            message = "the bilstm reads the last block's token states; leave this out, or use classifier: linear"
            if self.layers != "pooler":
                yield Problem(("layers", "classifier"), message)
            if self.hierarchical is not None:
                yield Problem(("hierarchical", "classifier"), message)
        elif self.lstm_size != 256:
            yield Problem(("lstm_size", "classifier"), "only with classifier: bilstm")

    def _rate_problems(self) -> Iterator[Problem]:
        given = {"layer_decay": self.layer_decay < 1, "layer_rates": self.layer_rates, "rate_bands": self.rate_bands}
        chosen = [key for key, value in given.items() if value]
        if len(chosen) > 1:
            hint = "; layer_decay: 1.0 is none" if chosen[0] == "layer_decay" else ""
            yield Problem((chosen[1], chosen[0]), f"give {' or '.join(chosen)}, not both{hint}")
        if self.decay_embeddings and self.layer_decay == 1:
            yield Problem(("decay_embeddings", "layer_decay"), "only with layer_decay below 1")


class FinetuneStage(ClassifierStage):
    """Fine-tuning: a classifier on the encoder, evaluated on the test split at the end."""

    task: Literal["finetune"]
    """What the stage does; default: the stage's name."""
    data: DataConfig | None = None
    """This stage's own data; default: the top-level data."""
    init_head: StageName | None = None
    """After a multi-task stage: the data set whose classifier is taken over. Default: the one with this stage's data
    set and labels, else a new classifier."""


class MultitaskStage(ClassifierStage):
    """Multi-task fine-tuning: one encoder, one classifier per data set; every step is a batch of one data set."""

    task: Literal["multitask"]
    """What the stage does; default: the stage's name."""
    data_sets: dict[StageName, DataConfig]
    """The data sets by name, at least 2, in order."""
    mixing: Literal["proportional", "equal"] | dict[StageName, float] = "proportional"
    """How often a data set is drawn: in proportion to its size (every row once per epoch), equally, or by weight
    (a section with a number per data set). An epoch has the same number of steps in all three."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if len(self.data_sets) < 2:
            yield Problem(("data_sets",), "at least 2 data sets are needed; for one, use task: finetune")
        if isinstance(self.mixing, dict):
            yield from self._weight_problems(self.mixing)
        if self.classifier != "linear":
            yield Problem(("classifier",), f"'{self.classifier}' is for stages with one data set; use linear")

    def _weight_problems(self, weights: dict[str, float]) -> Iterator[Problem]:
        missing = ", ".join(name for name in self.data_sets if name not in weights)
        unknown = ", ".join(name for name in weights if name not in self.data_sets)
        if missing or unknown:
            parts = [f"no weight for {missing}" if missing else "", f"no data set {unknown}" if unknown else ""]
            message = f"{'; '.join(filter(None, parts))}; give one weight per data set"
            yield Problem(("mixing", "data_sets"), message)
        for name, weight in weights.items():
            if weight <= 0.0:
                yield Problem((f"mixing.{name}",), f"{weight:g}; a weight must be above 0")


Stage = Annotated[PretrainStage | FinetuneStage | MultitaskStage, Field(discriminator="task")]
TASKS = ("pretrain", "finetune", "multitask")
