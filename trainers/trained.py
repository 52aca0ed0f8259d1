"""A trained classifier of a run, read back from STAGE/model for evaluation and prediction by one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataError
from configs.schema import ClassifierStage, Config, FinetuneStage, PretrainStage
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.engine.ranks import Ranks, tune_device
from trainers.init_head import HEAD_FILE
from trainers.model.folder import Head, HeadFile, build_model, load_folder, read_bert_config, read_head_file
from trainers.model_store import open_model

MAX_OTHERS = 8
"""Stages named beside the chosen one."""


@dataclass(frozen=True)
class Classifier:
    """Model, vocabulary and labels of a finished fine-tuning stage."""

    folder: Path
    model: Any
    stage: ClassifierStage
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    lower_case: bool
    pairs: bool
    """Whether it was trained on pairs of texts."""


def finished_classifier(run_dir: Path, config: Config, stage: str | None) -> str:
    """The stage to use: the named one, else the last finished stage with a classifier, which is said where there are several.

    Raises ConfigError when there is none.
    """
    finished = [
        name
        for name, settings in config.stages.items()
        if settings.task in ("finetune", "multitask") and (run_dir / name / "done.json").exists()
    ]
    if stage is not None and stage not in finished:
        shown = ", ".join(finished) or "none yet"
        raise ConfigError(
            f"stage '{stage}' of run {run_dir.name} is no finished classifier; finished: {shown}",
            f"choose one of them with --stage {finished[-1]}"
            if finished
            else f"finish it: ./run.sh resume {run_dir.name}",
        )
    if not finished:
        raise ConfigError(
            f"run {run_dir.name} has no finished classifier", f"finish it: ./run.sh resume {run_dir.name}"
        )
    return stage or last_one(run_dir.name, finished)


def last_one(run: str, stages: Sequence[str]) -> str:
    """The last of some stages; where there are others, stderr says which it is and how to choose."""
    chosen, others = stages[-1], stages[:-1]
    if others:
        shown = ", ".join(others[:MAX_OTHERS]) + (
            f" and {len(others) - MAX_OTHERS} more" if len(others) > MAX_OTHERS else ""
        )
        print(f"stage {chosen} of run {run} (others: {shown}; choose with --stage)", file=sys.stderr)
    return chosen


def load_classifier(folder: Path, head: str | None = None) -> Classifier:
    """Load STAGE/model, or another library's BertForSequenceClassification.

    head: the data set whose classifier to use, needed for a multi-task model alone. Raises DataError when it is not a classifier or not
    complete, ConfigError when `head` is missing or is none of its own.
    """
    head_file = read_head_file(folder)
    if head_file is None:
        stage: ClassifierStage
        stage, chosen, lower_case = _foreign_head(folder)
        if head is not None:
            raise ConfigError(f"'{head}': {folder} has one classifier only", "leave the data set out")
    elif isinstance(head_file.stage, PretrainStage):
        raise DataError(f"{folder}: a pre-training stage has no classifier", "name the folder of a fine-tuning stage")
    else:
        stage, chosen, lower_case = head_file.stage, _choose_head(folder, head_file, head), read_lower_case(folder)
    model = build_model(stage, read_bert_config(folder), len(chosen.label_names))
    loaded = load_folder(model, folder, head)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    vocabulary = load_vocabulary(folder / "vocab.txt")
    return Classifier(folder, model, stage, chosen.label_names, vocabulary, lower_case, chosen.pairs)


def _choose_head(folder: Path, head_file: HeadFile, name: str | None) -> Head:
    """The one classifier, or that of a data set of a multi-task model."""
    heads = ", ".join(head_file.heads)
    if not heads:
        if name is not None:
            raise ConfigError(f"'{name}': {folder} has one classifier only", "leave the data set out")
        return head_file.head
    if name in head_file.heads:
        return head_file.heads[name]
    what = f"'{name}' is no data set of it" if name is not None else "which one?"
    raise ConfigError(
        f"{folder} has a classifier per data set ({heads}); {what}",
        f"name one of them: --head (evaluate: --data-set) {next(iter(head_file.heads))}",
    )


def read_lower_case(folder: Path) -> bool:
    """Whether a trained model lower-cases its texts. Raises DataError."""
    path = folder / "tokenizer_config.json"
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["do_lower_case"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not written by a run: {error}") from error


def _foreign_head(folder: Path) -> tuple[FinetuneStage, Head, bool]:
    """(stage, head, whether it lower-cases) of a model that another library has trained: labels from config.json, all its positions,
    single texts."""
    files = open_model(folder, folder.resolve().name)
    names = files.config.get("id2label")
    if "BertForSequenceClassification" not in str(files.config.get("architectures")) or not isinstance(names, dict):
        raise DataError(
            f"{folder}: no trained classifier: it has neither {HEAD_FILE} nor, in config.json, the architecture "
            "BertForSequenceClassification with id2label",
            "name a run, or the folder of a trained classifier such as runs/NAME/finetune/model",
        )
    labels = tuple(str(names[key]) for key in sorted(names, key=_class_number))
    longest = min(512, int(files.config["max_position_embeddings"]))
    stage = FinetuneStage.model_validate({"task": "finetune", "epochs": 1, "max_length": longest})
    return stage, Head(labels), files.lower_case


def _class_number(key: str) -> int:
    if not key.isdecimal():
        raise DataError(f"config.json: id2label: {key!r}; a class number is needed")
    return int(key)


def alone() -> Ranks:
    """This process as the only rank, without any rendezvous."""
    return Ranks(0, 1, tune_device())


class SilentRecorder:
    """Takes the place of a rank's recorder where nobody watches."""

    stage = ""

    def beat(self) -> None:
        """No heartbeat."""

    def record(self, kind: str, **fields: Any) -> None:
        """No record."""
