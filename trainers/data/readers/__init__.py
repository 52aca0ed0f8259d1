"""Readers of raw data sets: one module per format, opened by name."""

from __future__ import annotations

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data.download import Fetch
from trainers.data.readers.base import Dataset
from trainers.data.readers.bert_instances import open_bert_instances
from trainers.data.readers.corpus import open_text_corpus
from trainers.data.readers.imdb import open_imdb
from trainers.data.readers.python_docs import open_python_docs
from trainers.data.readers.tables import open_table
from trainers.data.readers.trec import open_trec
from trainers.data.readers.zhang import FORMS, open_zhang


def open_dataset(data: DataConfig, fetch: Fetch) -> Dataset:
    """The data set that `data` names: its files found (or downloaded by `fetch`), not yet read. DataError when something is missing."""
    try:
        return _open(data, fetch)
    except PermissionError as error:
        raise DataError(
            f"data.path: {error.filename}: cannot read: {error.strerror}", "mend its permissions"
        ) from error


def _open(data: DataConfig, fetch: Fetch) -> Dataset:
    if data.dataset == "trec":
        return open_trec(data.path, data.labels, fetch)
    if data.dataset == "imdb":
        return open_imdb(data.path, fetch)
    if data.dataset in FORMS:
        return open_zhang(data.dataset, data.path, fetch)
    if data.dataset == "python_docs":
        return open_python_docs(data.path)
    own_format = {"text": open_text_corpus, "bert_instances": open_bert_instances}
    return own_format.get(data.dataset, open_table)(data)
