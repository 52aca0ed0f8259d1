"""The schema of data: where text comes from, how its files are read, which rows are used."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from configs.section import Fraction, PositiveInt, Problem, Strict, Text

DATASETS = ("trec", "imdb", "ag_news", "python_docs", "tsv", "csv", "jsonl", "text", "bert_instances")
GENERIC_DATASETS = ("tsv", "csv", "jsonl", "text")
WITHOUT_UNSUP = ("trec", "ag_news", "bert_instances")
WITHOUT_LABELS = ("text", "bert_instances")
READY_INSTANCES = "bert_instances"
"""The data set whose items are pre-training instances, masked already."""
CorpusSplits = tuple[Literal["train", "unsup"], ...]

Column = Text | Annotated[int, Field(ge=0)]


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

    dataset: Literal["trec", "imdb", "ag_news", "python_docs", "tsv", "csv", "jsonl", "text", "bert_instances"]
    """A known data set, or a generic format: tsv, csv, jsonl (named columns), text (one sentence per line,
    blank line between documents), bert_instances (pre-training instances in JSON, masked already)."""
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
        if self.dataset == READY_INSTANCES and self.path is None:
            yield Problem(("path", "dataset"), f"missing; dataset '{self.dataset}' needs the JSON file to read")
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
