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

from configs.errors import CannotWriteError, ConfigError, Exit, UserError
from configs.loader import load_config, load_resolved
from configs.mixing import batches_per_epoch
from configs.models import check_fits_model
from configs.schema import Config, MultitaskStage, PretrainStage, StageBase
from trainers.changed_data import tell_changed_data
from trainers.data.cache import cache_root, sha256_file
from trainers.data.dataset_cache import DatasetCache
from trainers.data.download import fetch_remote
from trainers.data.tokenize import Tokenizer
from trainers.data.vocabulary import load_vocabulary
from trainers.init_head import check_init_heads
from trainers.model_store import ModelFiles, resolve_model
from trainers.outside import prepare_starts
from trainers.prepare_pretraining import prepare_pretraining
from trainers.stage_data import finetuning_facts, multitask_facts

MIN_SECONDS_BETWEEN_LINES = 0.2


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


def prepare(config: Config, cache: Path, reporter: Reporter, run_dir: Path | None = None) -> dict[str, Any]:
    """Make everything that `config` needs; returns what prepared.json holds. Raises UserErrors.

    run_dir: the run, which must be known when stages start from weights of other runs.
    """
    model = resolve_model(
        config.model,
        cache / "models",
        lambda label, done, total: reporter.progress("model", label, done, total, "files"),
    )
    limits = (model.config["max_position_embeddings"], model.config["num_hidden_layers"])
    check_fits_model(config, model.name, *limits)
    starts = prepare_starts(config, run_dir, model)
    tokenizer = Tokenizer(load_vocabulary(model.vocab), model.lower_case)

    def fetch(dataset: str, name: str) -> Path:
        label = f"{dataset} {name}"
        advance = lambda done, total: reporter.progress("download", label, done, total, "bytes")  # noqa: E731
        return fetch_remote(dataset, name, cache / "downloads", advance)

    datasets = DatasetCache(cache / "tokens", tokenizer, fetch, reporter.progress, reporter.message)
    stages = {}
    for name, stage in config.stages.items():
        if isinstance(stage, PretrainStage):
            stages[name] = prepare_pretraining(config, name, stage, datasets, tokenizer.vocabulary, reporter.message)
        elif isinstance(stage, MultitaskStage):
            seed = config.stage_seed(name)
            stages[name] = multitask_facts(f"stages.{name}", stage, seed, datasets, reporter.message)
        else:
            data, seed = config.stage_data(name), config.stage_seed(name)
            stages[name] = finetuning_facts(f"stages.{name}", stage, data, seed, datasets, reporter.message)
        stages[name]["start"] = starts[name]
        _check_warmup(name, stage, stages[name])
    check_init_heads(config, run_dir, stages)
    if run_dir is not None:
        tell_changed_data(run_dir, stages, reporter.message)
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


def _steps_per_epoch(stage: StageBase, facts: Mapping[str, Any]) -> int:
    if isinstance(stage, MultitaskStage):
        return sum(batches_per_epoch(stage, _examples(facts)).values())
    whole = isinstance(stage, PretrainStage)  # pre-training leaves out an epoch's last, incomplete batch
    num_examples = int(facts["num_examples"])
    return max(1, num_examples // stage.batch) if whole else -(-num_examples // stage.batch)


def _examples(facts: Mapping[str, Any]) -> dict[str, int]:
    return {name: entry["num_examples"] for name, entry in facts["data_sets"].items()}


def _check_warmup(name: str, stage: StageBase, facts: Mapping[str, Any]) -> None:
    """ConfigError for a warm-up in steps that lasts as long as the stage: the learning rate would never be reached."""
    per_epoch = _steps_per_epoch(stage, facts)
    total = stage.max_steps or (stage.epochs or 0) * per_epoch
    if isinstance(stage.warmup, int) and stage.warmup >= total:
        raise ConfigError(
            f"stages.{name}.warmup: {stage.warmup} steps; the stage has only {total}",
            f"set stages.{name}.warmup below {total}, or to a share of all steps such as 0.1",
        )


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
        prepared = prepare(config, cache_root(), reporter, options.run_dir)
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
