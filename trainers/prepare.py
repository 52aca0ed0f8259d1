"""Everything the ranks need, made once before they start: data, tokens, model.

    python -m trainers.prepare --run-dir R            the config of a run; writes R/prepared.json
    python -m trainers.prepare --config FILE key=value ...     fills the cache and prints a summary

Prints JSON lines on stdout (progress, messages, one error); anything for people goes to stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from configs.errors import CannotWriteError, ConfigError, DataError, Exit, UserError
from configs.loader import load_config, load_resolved
from configs.models import check_fits_model
from configs.schema import Config, DataConfig, FinetuneStage, PretrainStage, StageBase
from trainers.data.cache import cache_root, sha256_file
from trainers.data.dataset_cache import DatasetCache
from trainers.data.download import fetch_remote
from trainers.data.instances import plan_epoch
from trainers.data.split import select_rows, subset_rows
from trainers.data.store import Corpus, Texts, open_corpus, open_texts
from trainers.data.tokenize import Tokenizer
from trainers.data.truncate import pair_lengths
from trainers.data.vocabulary import load_vocabulary
from trainers.model_store import ModelFiles, resolve_model

MIN_SECONDS_BETWEEN_LINES = 0.2
_HELD_OUT = ("test", "validation")


class Reporter:
    """Writes JSON lines; progress at most five times a second, and the last state of everything once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_s = 0.0
        self._finished: set[tuple[str, str]] = set()

    def progress(self, what: str, label: str, done: int, total: int | None, unit: str) -> None:
        """One progress record."""
        now = time.monotonic()
        if (what, label) in self._finished:
            return
        if done == total:
            self._finished.add((what, label))
        elif now - self._last_s < MIN_SECONDS_BETWEEN_LINES:
            return
        self._last_s = now
        self.write({"type": "prepare", "what": what, "label": label, "done": done, "total": total, "unit": unit})

    def message(self, text: str, level: str = "info") -> None:
        """One line for the user."""
        self.write({"type": "message", "level": level, "text": text})

    def write(self, record: Mapping[str, Any]) -> None:
        """One record."""
        print(json.dumps(record), file=self._stream, flush=True)


def prepare(config: Config, cache: Path, reporter: Reporter) -> dict[str, Any]:
    """Make everything that `config` needs; returns what prepared.json holds. Raises UserErrors."""
    model = resolve_model(
        config.model,
        cache / "models",
        lambda label, done, total: reporter.progress("model", label, done, total, "files"),
    )
    limits = (model.config["max_position_embeddings"], model.config["num_hidden_layers"])
    check_fits_model(config, model.name, *limits)
    tokenizer = Tokenizer(load_vocabulary(model.vocab), model.lower_case)

    def fetch(dataset: str, name: str) -> Path:
        label = f"{dataset} {name}"
        advance = lambda done, total: reporter.progress("download", label, done, total, "bytes")  # noqa: E731
        return fetch_remote(dataset, name, cache / "downloads", advance)

    datasets = DatasetCache(cache / "tokens", tokenizer, fetch, reporter.progress, reporter.message)
    stages = {}
    for name, stage in config.stages.items():
        data = config.stage_data(name)
        if isinstance(stage, PretrainStage):
            stages[name] = _prepare_pretraining(name, stage, data, config.seed, datasets, reporter)
        else:
            stages[name] = _prepare_finetuning(name, stage, data, config.seed, datasets)
        _check_warmup(name, stage, stages[name]["num_examples"])
    return {"model_dir": str(model.dir), "model": _describe(model), "stages": stages}


def _describe(model: ModelFiles) -> dict[str, Any]:
    return {
        "num_layers": model.config["num_hidden_layers"],
        "hidden_size": model.config["hidden_size"],
        "intermediate_size": model.config["intermediate_size"],
        "vocab_size": model.config["vocab_size"],
        "num_parameters": model.num_parameters,
        "name": model.name,
        "lower_case": model.lower_case,
        "fingerprint": _fingerprint(model.weights),
    }


def _fingerprint(files: Sequence[Path]) -> str:
    """sha256 of the weight file; of several, that of their sums in order."""
    sums = [sha256_file(file) for file in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _check_warmup(name: str, stage: StageBase, num_examples: int) -> None:
    """ConfigError for a warm-up in steps that lasts as long as the stage: the learning rate would never be reached."""
    whole = isinstance(stage, PretrainStage)  # pre-training leaves out an epoch's last, incomplete batch
    per_epoch = max(1, num_examples // stage.batch) if whole else -(-num_examples // stage.batch)
    total = stage.max_steps or (stage.epochs or 0) * per_epoch
    if isinstance(stage.warmup, int) and stage.warmup >= total:
        raise ConfigError(
            f"stages.{name}.warmup: {stage.warmup} steps; the stage has only {total}",
            f"set stages.{name}.warmup below {total}, or to a share of all steps such as 0.1",
        )


def _prepare_pretraining(
    name: str, stage: PretrainStage, data: DataConfig, seed: int, datasets: DatasetCache, reporter: Reporter
) -> dict[str, Any]:
    path = datasets.corpus(data, stage.splits, seed)
    corpus = open_corpus(path)
    plan = plan_epoch(
        corpus,
        seed=seed,
        epoch=0,
        max_length=stage.max_length,
        short_sequence_probability=stage.short_sequence_probability,
        nsp=stage.nsp,
    )
    if stage.nsp:
        _warn_of_single_sentences(name, corpus, reporter)
    num_tokens = int(plan.lengths.sum())
    return {
        "task": "pretrain",
        "label_names": None,
        "num_examples": len(plan),
        "num_validation": 0,
        "num_test": 0,
        "num_tokens": num_tokens,
        "mean_tokens": num_tokens / len(plan),
        "data_fingerprint": corpus.fingerprint,
        "splits": {"corpus": str(path)},
    }


def _warn_of_single_sentences(name: str, corpus: Corpus, reporter: Reporter) -> None:
    single = int((np.diff(corpus.document_offsets) == 1).sum())
    if single > corpus.num_documents // 2:
        reporter.message(
            f"stages.{name}: {single} of {corpus.num_documents} documents are one sentence, which always gets a random second "
            "part; consider nsp: false",
            "warning",
        )


def _prepare_finetuning(
    name: str, stage: FinetuneStage, data: DataConfig, seed: int, datasets: DatasetCache
) -> dict[str, Any]:
    paths = {"train": datasets.texts(data, "train")}
    train = open_texts(paths["train"])
    labels = _labels(name, data, train)
    paths |= {split: datasets.texts(data, split) for split in _HELD_OUT if split in datasets.dataset(data).splits}
    opened = {split: open_texts(path) for split, path in paths.items()}
    held_out = 0 if "validation" in opened else data.validation
    train_rows, validation_rows = select_rows(labels, held_out, data.subset.train, seed)
    num_test = 0
    if "test" in opened:
        num_test = len(opened["test"])
        if data.subset.test is not None:
            num_test = len(subset_rows(_labels(name, data, opened["test"]), data.subset.test, seed))
    num_tokens = int(_input_lengths(train, stage.max_length)[train_rows].sum())
    return {
        "task": "finetune",
        "label_names": list(train.label_names),
        "num_examples": len(train_rows),
        "num_validation": len(opened["validation"]) if "validation" in opened else len(validation_rows),
        "num_test": num_test,
        "num_tokens": num_tokens,
        "mean_tokens": num_tokens / len(train_rows),
        "data_fingerprint": train.fingerprint,
        "splits": {split: str(path) for split, path in paths.items()},
    }


def _labels(name: str, data: DataConfig, texts: Texts) -> np.ndarray:
    if texts.labels is None:
        raise DataError(f"stages.{name}: the {data.dataset} data has no labels", "set data.columns.label")
    if len(texts.label_names) < 2:
        raise DataError(
            f"stages.{name}: all rows have the label {', '.join(texts.label_names)}; a classifier needs at least 2",
            "check data.columns.label",
        )
    return texts.labels


def _input_lengths(texts: Texts, max_length: int) -> np.ndarray:
    """Tokens of every row as the model gets it: truncated, with special tokens."""
    if texts.pair_lengths is None:
        return np.minimum(texts.lengths, max_length - 2) + 2
    pairs = zip(texts.lengths.tolist(), texts.pair_lengths.tolist(), strict=True)
    return np.array([sum(pair_lengths(a, b, max_length - 3)) + 3 for a, b in pairs], dtype=np.int64)


def write_prepared(run_dir: Path, prepared: Mapping[str, Any]) -> None:
    """Write R/prepared.json: whole or not at all. CannotWriteError."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".prepared-", dir=run_dir)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(prepared, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, run_dir / "prepared.json")
    except OSError as error:
        raise CannotWriteError(
            f"{run_dir / 'prepared.json'}: cannot write: {error.strerror}", "free some space"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers.prepare", description=__doc__)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(argv)
    if (options.run_dir is None) == (options.config is None):
        parser.error("give --run-dir or --config")
    reporter = Reporter(sys.stdout)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if options.run_dir is not None:
            config = load_resolved(options.run_dir / "config.yaml")
        else:
            config = load_config(options.config, options.overrides).config
        prepared = prepare(config, cache_root(), reporter)
        if options.run_dir is not None:
            write_prepared(options.run_dir, prepared)
    except UserError as error:
        return _fail(reporter, error.message, error.hint, error.code)
    except KeyboardInterrupt:
        return Exit.SIGINT
    except Exception as error:  # noqa: BLE001 - the agent reads stdout: it must get a record for any failure
        traceback.print_exc()
        return _fail(
            reporter, f"internal error: {type(error).__name__}: {error}", "the traceback is above", Exit.INTERNAL
        )
    reporter.write(
        {
            "type": "prepare",
            "what": "done",
            "label": config.name,
            "done": 1,
            "total": 1,
            "unit": "",
            "summary": prepared,
        }
    )
    return Exit.DONE


def _stop(number: int, frame: object) -> None:
    """Leave by an exception, so that half-built cache entries are removed on the way out."""
    sys.exit(Exit.SIGTERM)


def _fail(reporter: Reporter, message: str, hint: str, code: Exit) -> int:
    reporter.write({"type": "error", "message": message, "hint": hint, "exit_code": int(code)})
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
