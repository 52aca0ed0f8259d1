"""Writing cache entries: rows or documents in, token arrays out, in bounded memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trainers.data.fingerprints import fingerprints
from trainers.data.npy import NpyWriter, id_dtype, write_npy
from trainers.data.readers.base import Row, whole_text
from trainers.data.readers.bert_instances import ReadyInstance
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import Vocabulary

BATCH_ROWS = 2048
"""Rows tokenised at once: enough to keep all cores busy, little enough to report often."""
MAX_EXAMPLES = 5
"""Bad rows that are named where they are skipped."""
Item = TypeVar("Item")


def build_texts(
    directory: Path,
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    label_names: tuple[str, ...] | None,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Tokenise rows into the files of a Texts entry; returns its manifest fields. `advance` is told the rows of every batch.

    `label_names` None: labels are the strings found in the rows, numbered in sorted order.
    """
    labels = _Labels(label_names)
    sources = _Sources()
    has_pairs = False
    with ExitStack() as stack:
        texts = _RaggedWriter(stack, directory, "", tokenizer)
        pairs = _RaggedWriter(stack, directory, "pair_", tokenizer)
        marks = stack.enter_context(NpyWriter(directory / "fingerprints.npy", "uint64"))
        for batch in batches(rows, BATCH_ROWS):
            texts.append([row.text for row in batch])
            if has_pairs or batch[0].pair is not None:
                has_pairs = True
                pairs.append([row.pair or "" for row in batch])
            marks.append(fingerprints([whole_text(row) for row in batch]))
            labels.extend(batch)
            sources.extend(batch)
            advance(len(batch))
    if not has_pairs:
        pairs.remove()
    sources.write(directory)
    names, values = labels.finish()
    if values is not None:
        write_npy(directory / "labels.npy", values)
    return {
        "rows": texts.num_rows,
        "tokens": texts.num_tokens,
        "has_pairs": has_pairs,
        "has_labels": values is not None,
        "label_names": list(names),
        **skipped_fields(0, ()),
        "vocab_size": tokenizer.vocabulary.size,
    }


def build_corpus(
    directory: Path,
    documents: Iterable[Sequence[str]],
    tokenizer: Tokenizer,
    advance: Callable[[int], None],
    without: np.ndarray | None = None,
) -> dict[str, Any]:
    """Tokenise documents (lists of sentences) into the files of a Corpus entry; returns its manifest fields.

    Sentences without a token and documents without a sentence are left out, and so are (and counted) documents whose fingerprint is in
    `without`. `advance` is told the documents of every batch.
    """
    num_sentences = num_documents = num_tokens = num_left_out = 0
    with ExitStack() as stack:
        ids_writer = stack.enter_context(NpyWriter(directory / "ids.npy", id_dtype(tokenizer.vocabulary.size)))
        sentence_writer = stack.enter_context(NpyWriter(directory / "sentence_offsets.npy", "int64"))
        document_writer = stack.enter_context(NpyWriter(directory / "document_offsets.npy", "int64"))
        mark_writer = stack.enter_context(NpyWriter(directory / "fingerprints.npy", "uint64"))
        sentence_writer.append(np.zeros(1, dtype=np.int64))
        document_writer.append(np.zeros(1, dtype=np.int64))
        for whole_batch in batches(documents, BATCH_ROWS):
            advance(len(whole_batch))
            marks = fingerprints(["\n".join(document) for document in whole_batch])
            batch = whole_batch
            if without is not None:
                wanted = ~np.isin(marks, without)
                batch, marks = [whole_batch[number] for number in np.flatnonzero(wanted)], marks[wanted]
                num_left_out += len(whole_batch) - len(batch)
            if not batch:
                continue
            ids, lengths = tokenizer.encode_batch([sentence for document in batch for sentence in document])
            document_of = np.repeat(np.arange(len(batch)), [len(document) for document in batch])[lengths > 0]
            sizes = np.bincount(document_of, minlength=len(batch))
            kept = lengths[lengths > 0]
            ids_writer.append(ids)
            sentence_writer.append(num_tokens + np.cumsum(kept))
            document_writer.append(num_sentences + np.cumsum(sizes[sizes > 0]))
            mark_writer.append(marks[sizes > 0])
            num_tokens += len(ids)
            num_sentences += len(kept)
            num_documents += int((sizes > 0).sum())
    write_npy(directory / "is_continuation.npy", tokenizer.vocabulary.is_continuation())
    return {
        "documents": num_documents,
        "sentences": num_sentences,
        "tokens": num_tokens,
        "left_out": num_left_out,
        **skipped_fields(0, ()),
        "vocab_size": tokenizer.vocabulary.size,
        "cls_id": tokenizer.vocabulary.cls_id,
        "sep_id": tokenizer.vocabulary.sep_id,
    }


def skipped_fields(num_bad: int, examples: Sequence[str]) -> dict[str, Any]:
    """Manifest fields about bad rows that were left out: how many, and what was wrong with the first."""
    return {"skipped": num_bad, "skipped_examples": list(examples[:MAX_EXAMPLES])}


def build_instances(
    directory: Path, instances: Iterable[ReadyInstance], vocabulary: Vocabulary, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write ready pre-training instances into the files of an Instances entry, without padding; returns its manifest fields."""
    ids_type = id_dtype(vocabulary.size)
    types = {"ids": ids_type, "types": "uint8", "positions": "uint16", "labels": ids_type, "next": "uint8"}
    num_instances = num_tokens = num_predictions = longest = 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(NpyWriter(directory / f"{name}.npy", kind)) for name, kind in types.items()
        }
        offsets = stack.enter_context(NpyWriter(directory / "offsets.npy", "int64"))
        predictions = stack.enter_context(NpyWriter(directory / "prediction_offsets.npy", "int64"))
        for writer in (offsets, predictions):
            writer.append(np.zeros(1, dtype=np.int64))
        for batch in batches(instances, BATCH_ROWS):
            for name, column in zip(("ids", "types", "positions", "labels"), zip(*batch, strict=True), strict=False):
                writers[name].append(np.concatenate(column))
            writers["next"].append(np.array([each.is_random_next for each in batch]))
            lengths = [len(each.ids) for each in batch]
            offsets.append(num_tokens + np.cumsum(lengths))
            predictions.append(num_predictions + np.cumsum([len(each.labels) for each in batch]))
            num_tokens += sum(lengths)
            num_predictions += sum(len(each.labels) for each in batch)
            num_instances += len(batch)
            longest = max(longest, *lengths)
            advance(len(batch))
    return {"instances": num_instances, "tokens": num_tokens, "predictions": num_predictions, "longest": longest}


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


class _RaggedWriter:
    """Token ids of texts in PREFIXids.npy, where each begins in PREFIXoffsets.npy."""

    def __init__(self, stack: ExitStack, directory: Path, prefix: str, tokenizer: Tokenizer) -> None:
        self.num_rows = 0
        self.num_tokens = 0
        self._tokenizer = tokenizer
        self._paths = (directory / f"{prefix}ids.npy", directory / f"{prefix}offsets.npy")
        self._ids = stack.enter_context(NpyWriter(self._paths[0], id_dtype(tokenizer.vocabulary.size)))
        self._offsets = stack.enter_context(NpyWriter(self._paths[1], "int64"))
        self._offsets.append(np.zeros(1, dtype=np.int64))

    def append(self, texts: Sequence[str]) -> None:
        ids, lengths = self._tokenizer.encode_batch(texts)
        self._ids.append(ids)
        self._offsets.append(self.num_tokens + np.cumsum(lengths))
        self.num_rows += len(texts)
        self.num_tokens += len(ids)

    def remove(self) -> None:
        for path in self._paths:
            path.unlink()


class _Labels:
    """Collects labels: numbers of a known list of names, or names to be numbered at the end."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._known = names
        self._numbers: dict[str, int] = {}
        self._parts: list[np.ndarray] = []

    def extend(self, rows: Sequence[Row]) -> None:
        if rows[0].label is None:
            return
        numbers = [self._number(row.label) for row in rows]
        self._parts.append(np.array(numbers, dtype=np.int32))

    def _number(self, label: int | str | None) -> int:
        if isinstance(label, int):
            return label
        if label is None:
            raise AssertionError("a reader gives every row of a split a label, or none")
        return self._numbers.setdefault(label, len(self._numbers))

    def finish(self) -> tuple[tuple[str, ...], np.ndarray | None]:
        if not self._parts:
            return self._known or (), None
        values = np.concatenate(self._parts)
        if not self._numbers:
            return self._known or (), values
        names = tuple(sorted(self._numbers, key=label_sort_key))
        new_number = np.empty(len(names), dtype=np.int32)
        for index, name in enumerate(names):
            new_number[self._numbers[name]] = index
        return names, new_number[values]


def label_sort_key(name: str) -> tuple[int, int, str]:
    """Numbers come before names and in numeric order."""
    digits = name.removeprefix("-")
    return (0, int(name), name) if digits.isdecimal() and digits.isascii() else (1, 0, name)


class _Sources:
    """File and line of every row, the file names stored once."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._files: list[np.ndarray] = []
        self._lines: list[np.ndarray] = []

    def extend(self, rows: Sequence[Row]) -> None:
        names = self._names
        self._files.append(np.array([names.setdefault(row.file, len(names)) for row in rows], dtype=np.int32))
        self._lines.append(np.array([row.line for row in rows], dtype=np.int32))

    def write(self, directory: Path) -> None:
        empty = [np.empty(0, dtype=np.int32)]
        write_npy(directory / "source_files.npy", np.concatenate(self._files or empty))
        write_npy(directory / "source_lines.npy", np.concatenate(self._lines or empty))
        (directory / "source_names.json").write_text(
            json.dumps(list(self._names), ensure_ascii=False), encoding="utf-8"
        )
