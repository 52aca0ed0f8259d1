"""From a data section of the config to cache entries: each (data, split) is read and tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data import fingerprints, sentences
from trainers.data.building import build_corpus, build_instances, build_texts, label_sort_key
from trainers.data.cache import ensure_entry, sha256_file
from trainers.data.download import Fetch
from trainers.data.readers import open_dataset
from trainers.data.readers.base import Dataset, ReadLog, Row, row_sentences
from trainers.data.readers.bert_instances import read_instances
from trainers.data.split import subset_rows
from trainers.data.store import open_texts
from trainers.data.tokenize import Tokenizer

Progress = Callable[[str, str, int, "int | None", str], None]
"""(what, label, done, total, unit)"""
Say = Callable[[str], None]
_ARCHIVE_GROWTH = 4
_TITLES = {"trec": "TREC", "imdb": "IMDB", "ag_news": "AG's News", "python_docs": "Python docs"}


class DatasetCache:
    """Makes and finds the token arrays of data sets for one tokenizer."""

    def __init__(self, tokens_dir: Path, tokenizer: Tokenizer, fetch: Fetch, progress: Progress, say: Say) -> None:
        self._tokens_dir = tokens_dir
        self._tokenizer = tokenizer
        self._fetch = fetch
        self._progress = progress
        self._say = say
        self._hashes: dict[Path, str] = {}
        self._datasets: dict[DataConfig, Dataset] = {}

    def dataset(self, data: DataConfig) -> Dataset:
        """The raw data set, opened once per data section."""
        if data not in self._datasets:
            self._datasets[data] = open_dataset(data, self._fetch)
        return self._datasets[data]

    def texts(self, data: DataConfig, split: str) -> Path:
        """The cache entry of one split, as Texts; DataError when the split does not exist or holds bad rows."""
        dataset = self.dataset(data)
        self._require(dataset, [split])
        names = dataset.label_names
        label_files: Sequence[Path] = ()
        if names is None and split != "train" and "train" in dataset.splits:
            names = open_texts(self.texts(data, "train")).label_names
            label_files = dataset.splits["train"]
        key = {
            **self._key(dataset, dataset.splits[split]),
            "split": split,
            "label_files": self._inputs(dataset, label_files),
        }

        def build(directory: Path) -> dict[str, Any]:
            log, advance = self._log(dataset, split, dataset.splits[split])
            rows = dataset.read(split, log)
            if dataset.label_names is None and names is not None:
                rows = _numbered(rows, names, log)
            fields = build_texts(directory, rows, self._tokenizer, names, advance)
            log.finish()
            self._finish(dataset, split, dataset.splits[split])
            if fields["rows"] == 0:
                raise DataError(f"{_title(dataset)}: the split '{split}' has no rows ({dataset.splits[split][0]})")
            return fields

        return ensure_entry(
            self._tokens_dir, "texts", key, build, self._estimated_bytes(dataset.splits[split]), self._say
        )

    def corpus(self, data: DataConfig, splits: Sequence[str], seed: int, tests: Sequence[DataConfig] = ()) -> Path:
        """The cache entry of the named splits (those that exist) as one Corpus; subsets are drawn with `seed`.

        Documents that also stand in the test split of a data set of `tests` are left out.
        """
        dataset = self.dataset(data)
        used = [split for split in splits if split in dataset.splits]
        if not used:
            self._require(dataset, splits)
        # an archive serves several splits: once is enough
        files = list(dict.fromkeys(path for split in used for path in dataset.splits[split]))
        subsets = {split: size for split in used if (size := getattr(data.subset, split)) is not None}
        key = {
            **self._key(dataset, files),
            "splits": used,
            "subsets": subsets,
            "subset_seed": seed if subsets else None,
            "sentences": sentences.VERSION,
            "left_out": self._tests_key(tests),
        }

        def build(directory: Path) -> dict[str, Any]:
            label = f"{'+'.join(used)} corpus"
            log, advance = self._log(dataset, label, files)
            documents = (
                each for split in used for each in self._documents(dataset, split, subsets.get(split), seed, log)
            )
            left_out = frozenset(each for test in tests for each in self._test_fingerprints(test).tolist())
            fields = build_corpus(directory, documents, self._tokenizer, advance, left_out)
            log.finish()
            self._finish(dataset, label, files)
            if fields["documents"] == 0:
                raise DataError(f"{_title(dataset)}: no text in the splits {', '.join(used)}")
            return fields

        return ensure_entry(self._tokens_dir, "corpus", key, build, self._estimated_bytes(files), self._say)

    def instances(self, data: DataConfig) -> Path:
        """The cache entry of ready instances; DataError names the instance that is wrong."""
        dataset = self.dataset(data)
        files = dataset.splits["train"]

        def build(directory: Path) -> dict[str, Any]:
            log, advance = self._log(dataset, "instances", files)
            found = (each for path in files for each in read_instances(path, self._tokenizer.vocabulary, log))
            fields = build_instances(directory, found, self._tokenizer.vocabulary, advance)
            log.finish()
            self._finish(dataset, "instances", files)
            if fields["instances"] == 0:
                raise DataError(f"{files[0]}: no instance in the file")
            return fields

        key = self._key(dataset, files)
        return ensure_entry(self._tokens_dir, "instances", key, build, self._estimated_bytes(files), self._say)

    def _tests_key(self, tests: Sequence[DataConfig]) -> Any:
        datasets = [self.dataset(test) for test in tests]
        keys = [self._key(dataset, dataset.splits["test"]) for dataset in datasets]
        return {"fingerprints": fingerprints.VERSION, "tests": keys} if keys else None

    def _test_fingerprints(self, data: DataConfig) -> np.ndarray:
        dataset = self.dataset(data)
        log = ReadLog()
        if dataset.read_documents is not None:
            texts = (" ".join(document) for document in dataset.read_documents("test", log))
        else:
            texts = (f"{row.text} {row.pair or ''}" for row in dataset.read("test", log))
        found = fingerprints.fingerprints(texts)
        log.finish()
        return found

    def _documents(
        self, dataset: Dataset, split: str, subset: int | None, seed: int, log: ReadLog
    ) -> Iterator[Sequence[str]]:
        if subset is None:
            return dataset.documents(split, log)
        if dataset.read_documents is not None:
            every = list(dataset.read_documents(split, log))
            return (every[row] for row in subset_rows(np.zeros(len(every), dtype=np.int32), subset, seed))
        # the same rows as fine-tuning draws from the same section: labels first, then the texts of the chosen ones
        labels = label_numbers(row.label for row in dataset.read(split, ReadLog()))
        chosen = set(subset_rows(labels, subset, seed).tolist())
        return (row_sentences(row) for number, row in enumerate(dataset.read(split, log)) if number in chosen)

    def _key(self, dataset: Dataset, files: Sequence[Path]) -> dict[str, Any]:
        return {
            "reader": dataset.name,
            "reader_version": dataset.version,
            "options": dict(dataset.options),
            "inputs": self._inputs(dataset, files),
            "vocabulary": self._tokenizer.vocabulary.sha256,
            "lower_case": self._tokenizer.lower_case,
            "tokenizers": self._tokenizer.library_version,
        }

    def _inputs(self, dataset: Dataset, files: Sequence[Path]) -> list[list[Any]]:
        """[name below the data set's folder, sha256] of every file: content, not time stamps, decides."""
        total = _size([path for path in files if path not in self._hashes])
        done = 0

        def advance(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            self._progress("read", f"{_title(dataset)}: checksums", done, total, "bytes")

        found = []
        for path in files:
            if path not in self._hashes:
                self._hashes[path] = _hash(path, advance)
            name = path.relative_to(dataset.root).as_posix() if dataset.root is not None else path.name
            found.append([name, self._hashes[path]])
        return found

    def _log(self, dataset: Dataset, label: str, files: Sequence[Path]) -> tuple[ReadLog, Callable[[int], None]]:
        """A log that counts the bytes read, and what the builder calls after every batch: it reports them as progress."""
        total = _size(files)
        done = 0

        def advance_bytes(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes

        def advance_rows(num_rows: int) -> None:
            self._progress("tokenize", f"{_title(dataset)} {label}", min(done, total), total, "bytes")

        return ReadLog(advance_bytes), advance_rows

    def _finish(self, dataset: Dataset, label: str, files: Sequence[Path]) -> None:
        self._progress("tokenize", f"{_title(dataset)} {label}", _size(files), _size(files), "bytes")

    def _estimated_bytes(self, files: Sequence[Path]) -> int:
        """Disk an entry may take: about two bytes per four of text, more for what is compressed."""
        size = _size(files)
        return size * _ARCHIVE_GROWTH if any(path.suffix in (".gz", ".tgz") for path in files) else size

    def _require(self, dataset: Dataset, splits: Sequence[str]) -> None:
        missing = [split for split in splits if split not in dataset.splits]
        if missing:
            raise DataError(
                f"{_title(dataset)}: no split '{missing[0]}'; there is: {', '.join(dataset.splits)}",
                "name its file in data.files, or use another data set",
            )


def label_numbers(labels: Iterator[int | str | None]) -> np.ndarray:
    """Labels of any kind as int32 class numbers, in the order that `build_texts` gives them; one class where there are none."""
    values = ["" if label is None else str(label) for label in labels]
    numbers = {name: number for number, name in enumerate(sorted(set(values), key=label_sort_key))}
    return np.array([numbers[value] for value in values], dtype=np.int32)


def _numbered(rows: Iterator[Row], names: tuple[str, ...], log: ReadLog) -> Iterator[Row]:
    """Rows with their label's number; labels that the training split lacks are bad rows."""
    numbers = {name: number for number, name in enumerate(names)}
    for row in rows:
        if row.label is None:
            yield row
        elif row.label in numbers:
            yield row._replace(label=numbers[str(row.label)])
        else:
            log.bad_row(row.file, row.line, "label not in the training split", row.label, ", ".join(names[:20]))


def _hash(path: Path, advance: Callable[[int], None]) -> str:
    try:
        return sha256_file(path, advance)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


def _size(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _title(dataset: Dataset) -> str:
    return _TITLES.get(dataset.name, dataset.name)
