"""Texts and a corpus as `prepare` leaves them, the tasks that train on them, and their batches in plain numbers for the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import FinetuneStage, PretrainStage
from trainers.align import settings, texts
from trainers.align.settings import CaseSettings
from trainers.data.building import build_corpus, build_texts
from trainers.data.cache import ensure_entry
from trainers.data.instances import InstancePlan
from trainers.data.pretraining import CorpusFacts, CorpusSource, open_sources
from trainers.data.readers.base import Row
from trainers.data.store import open_corpus, open_texts
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import Vocabulary
from trainers.tasks.finetune import FinetuneTask, TextEncoder
from trainers.tasks.pretrain import PretrainTask

NUM_DOCUMENTS = 14


def write_entries(
    directory: Path, case: CaseSettings, vocabulary: Vocabulary, words: list[str], rng: np.random.Generator
) -> dict[str, Path]:
    """Texts with labels and a corpus, as `prepare` leaves them."""
    tokenizer = Tokenizer(vocabulary, lower_case=True)
    rows = [
        Row(
            texts.random_words(words, count, rng),
            None if case.pair_words is None else texts.random_words(words, case.pair_words[number], rng),
            int(rng.integers(0, settings.NUM_CLASSES)),
            "made here",
            number + 1,
        )
        for number, count in enumerate(case.text_words)
    ]
    documents = [
        [texts.random_words(words, int(rng.integers(3, 25)), rng) for _ in range(int(rng.integers(2, 9)))]
        for _ in range(NUM_DOCUMENTS)
    ]
    labels = tuple(f"class {number}" for number in range(settings.NUM_CLASSES))

    def make_texts(target: Path) -> dict[str, Any]:
        return build_texts(target, rows, tokenizer, labels, lambda _: None)

    def make_corpus(target: Path) -> dict[str, Any]:
        return build_corpus(target, documents, tokenizer, lambda _: None)

    key = {"case": case.name}
    return {
        "texts": ensure_entry(directory, "texts", key, make_texts, 1 << 20, lambda _: None),
        "corpus": ensure_entry(directory, "corpus", key, make_corpus, 1 << 20, lambda _: None),
    }


# Fine-tuning ------------------------------------------------------------------------------------------------------------


def open_finetuning(stage: FinetuneStage, entry: Path, vocabulary: Vocabulary) -> FinetuneTask:
    """The task of a stage over all texts."""
    texts_entry = open_texts(entry)
    rows = np.arange(len(texts_entry), dtype=np.int64)
    return FinetuneTask(TextEncoder(texts_entry, vocabulary, stage), rows, stage.batch, settings.SEED, True)


def describe_finetuning(stage: FinetuneStage, entry: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Texts as token ids, labels, the rows of every step's batch, and how texts are read."""
    stored = open_texts(entry)
    if stored.labels is None:
        raise AssertionError("the texts were written with labels")
    task = open_finetuning(stage, entry, vocabulary)
    pairs = [stored.pair_tokens(number) for number in range(len(stored))]
    steps = (divmod(step, task.steps_per_epoch) for step in range(settings.TRAINED_STEPS))
    return {
        "rows": [
            [stored.tokens(number).tolist(), None if pair is None else pair.tolist()]
            for number, pair in enumerate(pairs)
        ],
        "labels": stored.labels.tolist(),
        "order": [task.batch_ids(epoch, index).tolist() for epoch, index in steps],
        "max_length": stage.max_length,
        "head": stage.truncation.head,
        "hierarchical": stage.hierarchical,
        "frozen_encoder": stage.freeze == "encoder",
        "num_classes": settings.NUM_CLASSES,
    }


def check_lengths(stage: FinetuneStage, entry: Path, vocabulary: Vocabulary) -> None:
    """AssertionError unless the full length is in the first batch, where gradients are compared, and not in the second."""
    task = open_finetuning(stage, entry, vocabulary)
    longest = [int(task.lengths(0, task.batch_ids(0, index)).max()) for index in (0, 1)]
    if not longest[1] < longest[0] == stage.max_length:
        raise AssertionError(f"longest sequences of the first two batches: {longest}")


# Pre-training -----------------------------------------------------------------------------------------------------------


def open_source(stage: PretrainStage, entry: Path, vocabulary: Vocabulary) -> CorpusSource:
    """What a stage draws from the corpus."""
    num_documents = open_corpus(entry).num_documents
    facts: CorpusFacts = {
        "title": "made here",
        "kind": "corpus",
        "entry": str(entry),
        "weight": 1.0,
        "documents": num_documents,
        "left_out": 0,
    }
    source = open_sources("pretrain", stage, [facts], vocabulary, settings.SEED).training
    if not isinstance(source, CorpusSource):
        raise AssertionError("a corpus is drawn from")
    return source


def open_pretraining(stage: PretrainStage, entry: Path, vocabulary: Vocabulary) -> PretrainTask:
    """The task of a stage over the corpus."""
    return PretrainTask(open_source(stage, entry, vocabulary), stage.nsp, stage.batch, settings.SEED, True)


def describe_pretraining(stage: PretrainStage, entry: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """The instances of every step's batch."""
    task, source = open_pretraining(stage, entry, vocabulary), open_source(stage, entry, vocabulary)
    steps = [divmod(step, task.steps_per_epoch) for step in range(settings.TRAINED_STEPS)]
    return {"order": [_describe_instances(source, epoch, task.batch_ids(epoch, index)) for epoch, index in steps]}


def _describe_instances(source: CorpusSource, epoch: int, instances: np.ndarray) -> list[dict[str, Any]]:
    """A, B, whether B is random, predicted positions within the sequence, and what stands there."""
    drawn, described = source.epoch(epoch), []
    plan = drawn.plan
    if not isinstance(plan, InstancePlan):
        raise AssertionError("the stage does not pack")
    for number in instances.tolist():
        a_start, a_length = int(plan.starts_a[number]), int(plan.lengths_a[number])
        b_start, b_length = int(plan.starts_b[number]), int(plan.lengths_b[number])
        masked = drawn.masked(np.array([number]))
        described.append(
            {
                "a": plan.ids[a_start : a_start + a_length].tolist(),
                "b": plan.ids[b_start : b_start + b_length].tolist(),
                "is_random": bool(plan.is_random_next[number]),
                "positions": masked.positions.tolist(),
                "replacements": masked.ids[masked.positions].tolist(),
            }
        )
    return described
