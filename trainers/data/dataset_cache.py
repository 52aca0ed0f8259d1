"""From a data section of the config to cache entries: each (data, split) is read and tokenised once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from trainers.data import fingerprints, sentences
from trainers.data.building import build_corpus, build_instances, build_texts, label_sort_key, skipped_fields
from trainers.data.cache import ensure_entry, sha256_file
from trainers.data.download import Fetch
from trainers.data.duplicates import Duplicates, drops_rows, ensure_duplicates, open_duplicates
from trainers.data.readers import open_dataset
from trainers.data.readers.base import Dataset, ReadLog, Row, row_sentences
from trainers.data.readers.bert_instances import read_instances
from trainers.data.split import pool_rows, select_rows, subset_rows
from trainers.data.store import open_texts
from trainers.data.tokenize import Tokenizer

Progress = Callable[[str, str, int, "int | None", str], None]
"""(what, label, done, total, unit)"""
Say = Callable[[str], None]
_ARCHIVE_GROWTH = 4
_TITLES = {
    "trec": "TREC",
    "imdb": "IMDB",
    "ag_news": "AG's News",
    "yahoo": "Yahoo! Answers",
    "dbpedia": "DBPedia",
    "yelp_polarity": "Yelp P.",
    "yelp_full": "Yelp F.",
    "sogou": "Sogou News",
    "sogou_pinyin": "Sogou News (Pinyin)",
    "python_docs": "Python docs",
}


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
            **self._key(dataset, data, dataset.splits[split]),
            "split": split,
            "label_files": self._inputs(dataset, label_files),
        }

        def build(directory: Path) -> dict[str, Any]:
            advance_bytes, advance = self._advances(dataset, split, dataset.splits[split])
            log = ReadLog(advance_bytes, _skips(data))
            rows = dataset.read(split, log)
            if dataset.label_names is None and names is not None:
                rows = _numbered(rows, names, log)
            rows = log.counted(rows)
            fields = build_texts(directory, rows, self._tokenizer, names, advance)
            log.finish(data.max_bad_rows)
            self._finish(dataset, split, dataset.splits[split])
            if fields["rows"] == 0:
                raise DataError(f"{_title(dataset)}: the split '{split}' has no rows ({dataset.splits[split][0]})")
            return {**fields, **skipped_fields(log.num_bad, log.examples)}

        return ensure_entry(
            self._tokens_dir, "texts", key, build, self._estimated_bytes(dataset.splits[split]), self._say
        )

    def corpus(self, data: DataConfig, splits: Sequence[str], seed: int, without: Sequence[DataConfig] = ()) -> Path:
        """The cache entry of the named splits (those that exist) as one Corpus.

        Subsets are drawn with `seed`. Documents that stand in the test split of a section in `without` are left out (of `data` itself
        with overlap: drop), and so are the training rows that `data` drops as near-duplicates.
        """
        dataset = self.dataset(data)
        used = [split for split in splits if split in dataset.splits]
        if not used:
            self._require(dataset, splits)
        # an archive serves several splits: once is enough
        files = list(dict.fromkeys(path for split in used for path in dataset.splits[split]))
        others = [data, *without] if data.overlap == "drop" else list(without)
        tests = [open_texts(self.texts(other, "test")) for other in others]
        dropped = self._duplicates_of(data) if "train" in used and drops_rows(data) else None
        key = self._key(dataset, data, files)
        drawn = _drawing(data, used, seed)
        if drawn is None:  # then labels decide nothing
            key["options"] = {option: value for option, value in key["options"].items() if option != "labels"}
        key |= {
            "splits": used,
            "drawn": drawn,
            "dropped": [dropped.fingerprint, data.overlap, data.near_duplicates] if dropped is not None else None,
            "without": sorted({test.fingerprint for test in tests}),
            "sentences": sentences.VERSION,
        }

        def build(directory: Path) -> dict[str, Any]:
            label = f"{'+'.join(used)} corpus"
            advance_bytes, advance = self._advances(dataset, label, files)
            logs = {split: ReadLog(advance_bytes, _skips(data)) for split in used}
            mask = dropped.dropped(data) if dropped is not None else None
            documents = (each for split in used for each in _documents(dataset, data, split, seed, mask, logs[split]))
            excluded = np.concatenate([test.row_fingerprints for test in tests]) if tests else None
            fields = build_corpus(directory, documents, self._tokenizer, advance, excluded)
            for log in logs.values():
                log.finish(data.max_bad_rows)
            self._finish(dataset, label, files)
            fields["left_out"] += int(mask.sum()) if mask is not None else 0
            if fields["documents"] == 0:
                raise DataError(f"{_title(dataset)}: no text in the splits {', '.join(used)}")
            examples = [example for log in logs.values() for example in log.examples]
            return {**fields, **skipped_fields(sum(log.num_bad for log in logs.values()), examples)}

        return ensure_entry(self._tokens_dir, "corpus", key, build, self._estimated_bytes(files), self._say)

    def instances(self, data: DataConfig) -> Path:
        """The cache entry of ready instances; DataError names the instance that is wrong."""
        dataset = self.dataset(data)
        files = dataset.splits["train"]

        def build(directory: Path) -> dict[str, Any]:
            advance_bytes, advance = self._advances(dataset, "instances", files)
            log = ReadLog(advance_bytes)
            found = (each for path in files for each in read_instances(path, self._tokenizer.vocabulary, log))
            fields = build_instances(directory, found, self._tokenizer.vocabulary, advance)
            log.finish()
            self._finish(dataset, "instances", files)
            if fields["instances"] == 0:
                raise DataError(f"{files[0]}: no instance in the file")
            return fields

        key = self._key(dataset, data, files)
        return ensure_entry(self._tokens_dir, "instances", key, build, self._estimated_bytes(files), self._say)

    def duplicates(self, data: DataConfig) -> Path:
        """The cache entry of what the training split repeats of itself and of the test split (where there is one)."""
        dataset = self.dataset(data)
        if data.overlap == "drop" and "test" not in dataset.splits:
            raise DataError(
                f"data.overlap: 'drop' compares with the test split, and {_title(dataset)} has none",
                "name it in data.files",
            )
        train = open_texts(self.texts(data, "train"))
        test = open_texts(self.texts(data, "test")) if "test" in dataset.splits else None

        def advance(done: int, total: int) -> None:
            self._progress("duplicates", _title(dataset), done, total, "rows")

        return ensure_duplicates(self._tokens_dir, train, test, advance, self._say)

    def _duplicates_of(self, data: DataConfig) -> Duplicates:
        return open_duplicates(self.duplicates(data))

    def _key(self, dataset: Dataset, data: DataConfig, files: Sequence[Path]) -> dict[str, Any]:
        return {
            "bad_rows": [data.on_bad_row, data.max_bad_rows],
            "fingerprints": fingerprints.VERSION,
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

    def _advances(
        self, dataset: Dataset, label: str, files: Sequence[Path]
    ) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """What a log tells of the bytes read, and what the builder calls after every batch: it reports them as progress."""
        total = _size(files)
        done = 0

        def advance_bytes(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes

        def advance_rows(num_rows: int) -> None:
            self._progress("tokenize", f"{_title(dataset)} {label}", min(done, total), total, "bytes")

        return advance_bytes, advance_rows

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


def _skips(data: DataConfig) -> bool:
    return data.on_bad_row == "skip"


def _drawing(data: DataConfig, splits: Sequence[str], seed: int) -> dict[str, Any] | None:
    """What decides which rows of a corpus are drawn; None where all are used."""
    sizes = {split: size for split in splits if (size := getattr(data.subset, split)) is not None}
    few = None
    if "train" in splits and data.subset.per_class is not None:
        few = [data.subset.per_class, data.folds, data.fold]
    return {"sizes": sizes, "few": few, "seed": seed} if sizes or few else None


def _documents(
    dataset: Dataset, data: DataConfig, split: str, seed: int, dropped: np.ndarray | None, log: ReadLog
) -> Iterator[Sequence[str]]:
    """The documents of a split for a corpus: those rows that fine-tuning draws from the same section, validation rows among them.

    `dropped` marks the rows of the training split that are left out.
    """
    dropped = dropped if split == "train" else None
    size = getattr(data.subset, split)
    few = split == "train" and data.subset.per_class is not None
    if dataset.read_documents is not None:
        documents = log.counted(dataset.read_documents(split, log), len)
        if size is None:
            return documents
        every = list(documents)
        return (every[row] for row in subset_rows(np.zeros(len(every), dtype=np.int32), size, seed))
    read = log.counted(dataset.read(split, log))
    if size is None and not few and dropped is None:
        return map(row_sentences, read)
    # labels first, then the texts of the chosen rows; what is wrong is told by the second pass
    first_log = ReadLog(skip=_skips(data))
    names, labels = label_numbers(row.label for row in dataset.read(split, first_log))
    kept = np.flatnonzero(~dropped) if dropped is not None else None
    if split != "train":
        rows = subset_rows(labels, size, seed)
    elif few:
        rows, _ = select_rows(labels, data, seed, names, kept)
    else:
        rows = pool_rows(labels, data, seed, kept)
    chosen = set(rows.tolist())
    return (row_sentences(row) for number, row in enumerate(read) if number in chosen)


def label_numbers(labels: Iterator[int | str | None]) -> tuple[tuple[str, ...], np.ndarray]:
    """(the labels there are, int32 number of each row's), in the order that `build_texts` gives them; one class without labels."""
    values = ["" if label is None else str(label) for label in labels]
    numbers = {name: number for number, name in enumerate(sorted(set(values), key=label_sort_key))}
    return tuple(numbers), np.array([numbers[value] for value in values], dtype=np.int32)


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
