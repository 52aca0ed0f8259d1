"""Preparing a pre-training stage: a cache entry per corpus, and what the plan must know of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import ConfigError
from configs.schema import (
    READY_INSTANCES,
    Config,
    CorpusConfig,
    DataConfig,
    PretrainStage,
)
from trainers.data.dataset_cache import DatasetCache
from trainers.data.documents import Documents
from trainers.data.pretraining import CorpusFacts, CorpusSource, open_sources
from trainers.data.store import Corpus, open_corpus, open_instances
from trainers.data.vocabulary import Vocabulary
from trainers.stage_data import describe_lengths, tell_skipped

Say = Callable[[str, str], None]
"""(text, level)"""


class _Prepared(NamedTuple):
    """A corpus: what prepared.json says of it, the fingerprint of its content, and its entry (None for ready instances)."""

    facts: CorpusFacts
    fingerprint: str
    entry: Corpus | None


def prepare_pretraining(
    config: Config, name: str, stage: PretrainStage, datasets: DatasetCache, vocabulary: Vocabulary, say: Say
) -> dict[str, Any]:
    """The stage's part of prepared.json. Raises DataError and ConfigError."""
    sections = config.stage_corpora(name)
    tests = _tests(config, name, sections, datasets) if stage.leave_out_tests else []
    seed = config.stage_seed(name)
    prepared = [_prepare_corpus(section, seed, datasets, tests) for section in sections]
    corpora = [corpus.facts for corpus in prepared]
    prints = [corpus.fingerprint for corpus in prepared]
    sources = open_sources(name, stage, corpora, vocabulary, seed)
    epoch = sources.training.epoch(0)
    num_tokens = int(epoch.lengths.sum())
    for corpus in prepared:
        if corpus.entry is not None:
            tell_skipped(
                f"stages.{name}: {corpus.facts['title']} corpus", corpus.entry, corpus.entry.num_documents, say
            )
    if isinstance(sources.training, CorpusSource) and stage.nsp:
        _warn_of_single_sentences(name, stage, sources.training.documents, say)
    return {
        "task": "pretrain",
        "label_names": None,
        "num_examples": len(epoch.lengths),
        "num_validation": len(sources.held_out.epoch(0).lengths) if sources.held_out is not None else 0,
        "num_test": 0,
        "num_tokens": num_tokens,
        "mean_tokens": num_tokens / len(epoch.lengths),
        "data_fingerprint": prints[0] if len(prints) == 1 else hashlib.sha256("".join(prints).encode()).hexdigest(),
        "splits": {},
        "corpora": corpora,
        "num_held_out": sources.num_held_out,
        **_row_facts([corpus.entry for corpus in prepared if corpus.entry is not None], epoch.lengths),
    }


def _row_facts(corpora: Sequence[Corpus], instance_lengths: np.ndarray) -> dict[str, Any]:
    """What is doubtful about the documents of all corpora together, and how long they are (ready instances: those)."""
    lengths = [np.diff(corpus.sentence_offsets[corpus.document_offsets]) for corpus in corpora]
    return {
        "num_documents": sum(corpus.num_documents for corpus in corpora),
        "num_skipped": sum(corpus.num_skipped for corpus in corpora),
        "skipped_examples": [example for corpus in corpora for example in corpus.skipped_examples],
        "num_dropped": sum(corpus.num_left_out for corpus in corpora),
        "num_repeats": {"repeated": sum(_num_repeated(corpus) for corpus in corpora)},
        "lengths": describe_lengths(np.concatenate(lengths) if lengths else instance_lengths, None),
    }


def _num_repeated(corpus: Corpus) -> int:
    return corpus.num_documents - len(np.unique(corpus.row_fingerprints))


def _tests(config: Config, name: str, corpora: Sequence[CorpusConfig], datasets: DatasetCache) -> list[DataConfig]:
    """The data sections whose test splits must not be learnt from. ConfigError when there is none."""
    plain = [
        DataConfig(**{key: getattr(each, key) for key in DataConfig.model_fields})
        for each in (*corpora, *config.labelled_data())
    ]
    found = [each for each in dict.fromkeys(plain) if "test" in datasets.dataset(each).splits]
    if not found:
        raise ConfigError(
            f"stages.{name}.leave_out_tests: none of the corpora and fine-tuning data has a test split",
            "name it in data.files.test, or leave leave_out_tests out",
        )
    return found


def _prepare_corpus(section: CorpusConfig, seed: int, datasets: DatasetCache, tests: Sequence[DataConfig]) -> _Prepared:
    if section.dataset == READY_INSTANCES:
        entry = datasets.instances(section)
        instances = open_instances(entry)
        return _Prepared(_facts(section, "instances", entry, len(instances), 0), instances.fingerprint, None)
    entry = datasets.corpus(section, section.splits, seed, tests)
    corpus = open_corpus(entry)
    facts = _facts(section, "corpus", entry, corpus.num_documents, corpus.num_left_out)
    return _Prepared(facts, corpus.fingerprint, corpus)


def _facts(section: CorpusConfig, kind: str, entry: Path, documents: int, left_out: int) -> CorpusFacts:
    return {
        "title": section.dataset,
        "kind": kind,
        "entry": str(entry),
        "weight": section.weight,
        "documents": documents,
        "left_out": left_out,
    }


def _warn_of_single_sentences(name: str, stage: PretrainStage, documents: Documents, say: Say) -> None:
    single = int((documents.stops - documents.firsts == 1).sum())
    if single <= len(documents) // 2:
        return
    found = f"stages.{name}: {single} of {len(documents)} documents are one sentence"
    if stage.single_sentences == "alone":
        say(f"{found}, which has no next one; consider nsp: false with packing: true", "warning")
    else:
        say(
            f"{found}, which always gets a random second part; consider single_sentences: alone or nsp: false",
            "warning",
        )
