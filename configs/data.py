"""The schema of data: where text comes from, how its files are read, which rows are used."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from configs.section import Fraction, PositiveInt, Problem, Strict, Text

DatasetName = Literal[
    "trec",
    "imdb",
    "ag_news",
    "yahoo",
    "dbpedia",
    "yelp_polarity",
    "yelp_full",
    "sogou",
    "sogou_pinyin",
    "python_docs",
    "tsv",
    "csv",
    "jsonl",
    "text",
    "bert_instances",
]
DATASETS: tuple[str, ...] = get_args(DatasetName)
GENERIC_DATASETS = ("tsv", "csv", "jsonl", "text")
READY_INSTANCES = "bert_instances"
"""The data set whose items are pre-training instances, masked already."""
LOCAL_DATASETS = (*GENERIC_DATASETS, "sogou", READY_INSTANCES)
"""Data sets that nobody offers for download: `data.path` is needed."""
ZHANG_DATASETS = ("ag_news", "yahoo", "dbpedia", "yelp_polarity", "yelp_full", "sogou", "sogou_pinyin")
WITHOUT_UNSUP = ("trec", *ZHANG_DATASETS, READY_INSTANCES)
WITHOUT_LABELS = ("text", READY_INSTANCES)
DEFAULT_VALIDATION = 0.1
DEFAULT_MAX_BAD_ROWS = 0.01
CorpusSplits = tuple[Literal["train", "unsup"], ...]

Column = Text | Annotated[int, Field(ge=0)]
Size = Annotated[float, Field(gt=0.0, lt=1.0)] | PositiveInt


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
    """Train or test on a part of the data: a stratified, seeded sample of each split."""

    train: Size | None = None
    """Number or part (below 1) of the training rows kept, before validation rows are split off."""
    test: Size | None = None
    """Number or part of the test rows kept."""
    unsup: Size | None = None
    """Number or part of the texts without labels kept."""
    per_class: PositiveInt | None = None
    """Few-shot: exactly n training rows of each class; validation rows come on top, in proportion."""

    def problems(self) -> Iterator[Problem]:
        if self.per_class is not None and self.train is not None:
            yield Problem(("per_class", "train"), "give subset.per_class or subset.train, not both")


class DataConfig(Strict):
    """Where the text comes from."""

    dataset: DatasetName
    """A known data set, or a generic format: tsv, csv, jsonl (named columns), text (one sentence per line,
    blank line between documents), bert_instances (pre-training instances in JSON, masked already)."""
    path: Text | None = None
    """A local copy: file, folder or archive (never needs unpacking). Without it a public data set is
    downloaded and its sha256 checked; the generic formats and sogou need it."""
    labels: Literal["coarse", "fine"] = "coarse"
    """Which labels TREC uses: 6 coarse or 50 fine classes."""
    validation: Fraction | PositiveInt = DEFAULT_VALIDATION
    """Part (below 1) or number of training rows held out, stratified and seeded, to choose the best
    checkpoint. 0: none."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation: the training rows are dealt into k folds, stratified and seeded; needs `fold`."""
    fold: Annotated[int, Field(ge=0)] | None = None
    """Which fold (0 to folds - 1) holds the validation rows; the others are trained on."""
    subset: Subset = Subset()
    """Use only a part of the rows."""
    on_bad_row: Literal["strict", "skip"] = "strict"
    """A row that cannot be read: strict ends preparation and names up to 20; skip leaves it out and counts
    it."""
    max_bad_rows: Fraction = DEFAULT_MAX_BAD_ROWS
    """With skip: preparation ends when more than this part of a split's rows is bad."""
    overlap: Literal["report", "drop"] = "report"
    """Training rows whose text (but for case, punctuation and spacing) also stands in the test split: report
    counts them, drop leaves them out. The test split never changes."""
    near_duplicates: Literal["report", "drop"] = "report"
    """Training rows that share at least 80 % of their phrases with an earlier training row: report counts
    them, drop leaves the later ones out."""
    files: Files = Files()
    """Generic formats: the file of each split."""
    columns: Columns = Columns()
    """Generic tables: which column holds what."""
    header: bool = True
    """Generic tables: the first row names the columns."""
    encoding: Text = "utf-8"
    """Generic formats: the text encoding of the files."""

    def problems(self) -> Iterator[Problem]:
        if self.path is None and self.dataset in LOCAL_DATASETS:
            hint = "; Zhang's version in Pinyin is 'sogou_pinyin'" if self.dataset == "sogou" else ""
            message = f"missing; dataset '{self.dataset}' needs the file or folder to read{hint}"
            yield Problem(("path", "dataset"), message)
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
        if self.on_bad_row == "strict" and self.max_bad_rows != DEFAULT_MAX_BAD_ROWS:
            yield Problem(("max_bad_rows", "on_bad_row"), "only with on_bad_row: skip; strict allows no bad row")
        if self.dataset == "text":
            yield from self._text_problems()
        yield from self._fold_problems()

    def _fold_problems(self) -> Iterator[Problem]:
        if self.folds is None and self.fold is None:
            return
        if self.folds is None or self.fold is None:
            given, missing = ("folds", "fold") if self.fold is None else ("fold", "folds")
            yield Problem((missing, given), f"missing; {given} is given, and neither goes without the other")
        elif self.fold >= self.folds:
            yield Problem(("fold", "folds"), f"{self.fold}; with folds: {self.folds} it is 0 to {self.folds - 1}")
        if self.validation != DEFAULT_VALIDATION:
            yield Problem(("validation", "folds"), "with folds the validation rows are one fold; leave validation out")
        if self.files.validation is not None:
            yield Problem(("files.validation", "folds"), "with folds the validation rows are one fold; leave it out")

    def _text_problems(self) -> Iterator[Problem]:
        """A corpus has documents but no rows with labels, and no test split."""
        for key in ("overlap", "near_duplicates"):
            if getattr(self, key) == "drop":
                yield Problem((key, "dataset"), "'drop' is for labelled data sets, not for dataset 'text'")
        if self.folds is not None:
            yield Problem(("folds", "dataset"), "dataset 'text' has no labels to make folds of")
        if self.subset.per_class is not None:
            yield Problem(("subset.per_class", "dataset"), "dataset 'text' has no classes")

    def _generic_problems(self) -> Iterator[Problem]:
        if not _is_text_encoding(self.encoding):
            yield Problem(("encoding",), f"'{self.encoding}' is no known text encoding, such as utf-8 or latin-1")
        if not self.header and self.dataset in ("tsv", "csv"):
            for key in Columns.model_fields:
                column = getattr(self.columns, key)
                if isinstance(column, str):
                    message = f"'{column}' is a name; with header: false a column is a number, 0 for the first"
                    yield Problem((f"columns.{key}", "header"), message)


class CorpusConfig(DataConfig):
    """One of several corpora of a further pre-training stage."""

    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Passes over its documents per epoch: 2 draws every document twice, 0.5 a fresh half of them."""
    splits: CorpusSplits = Field(default=("train", "unsup"), strict=False)
    """Which splits are used (those that exist); the test split never is."""

    @classmethod
    def whole(cls, data: DataConfig, splits: CorpusSplits) -> CorpusConfig:
        """A data section as a corpus that is passed over once per epoch."""
        kept = {key: getattr(data, key) for key in DataConfig.model_fields if key != "validation"}
        return cls.model_construct(**kept, splits=splits)  # the section's own faults are told where it stands

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.validation != DataConfig.model_fields["validation"].default:
            message = "a corpus has no validation rows; the stage's own `validation` holds out documents"
            yield Problem(("validation",), message)
        yield from split_problems(self)


def split_problems(section: Any) -> Iterator[Problem]:
    """What is wrong with the `splits` of a corpus or a stage."""
    if not section.splits or len(set(section.splits)) != len(section.splits):
        yield Problem(("splits",), "name at least one split, each once: train, unsup")


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
        codecs.lookup(name)
    except LookupError:
        return False
    return True
