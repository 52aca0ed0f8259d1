"""A trained classifier of a run, read back from STAGE/model for evaluation and prediction by one process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import ConfigError, DataError
from configs.schema import Config, FinetuneStage
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.engine.ranks import Ranks, tune_device
from trainers.model.folder import HEAD_FILE, build_model, load_folder, read_bert_config
from trainers.model_store import open_model


@dataclass(frozen=True)
class Classifier:
    """Model, vocabulary and labels of a finished fine-tuning stage."""

    folder: Path
    model: Any
    stage: FinetuneStage
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    lower_case: bool
    pairs: bool
    """Whether it was trained on pairs of texts."""


def finished_classifier(run_dir: Path, config: Config, stage: str | None) -> str:
    """The stage to use: the named one, else the last finished fine-tuning stage.

    Raises ConfigError when there is none.
    """
    finished = [
        name
        for name, settings in config.stages.items()
        if settings.task == "finetune" and (run_dir / name / "done.json").exists()
    ]
    if stage is not None and stage not in finished:
        shown = ", ".join(finished) or "none yet"
        raise ConfigError(f"stage '{stage}' of run {run_dir.name} is no finished classifier; finished: {shown}")
    if not finished:
        raise ConfigError(
            f"run {run_dir.name} has no finished classifier", f"finish it: ./run.sh resume {run_dir.name}"
        )
    return stage or finished[-1]


def load_classifier(folder: Path) -> Classifier:
    """Load STAGE/model, or another library's BertForSequenceClassification.

    Raises DataError when it is not a classifier, or not complete.
    """
    stage, labels, pairs, lower_case = _read_head(folder) if (folder / HEAD_FILE).is_file() else _foreign_head(folder)
    model = build_model(stage, read_bert_config(folder), len(labels))
    loaded = load_folder(model, folder)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    return Classifier(folder, model, stage, labels, load_vocabulary(folder / "vocab.txt"), lower_case, pairs)


def _read_head(folder: Path) -> tuple[FinetuneStage, tuple[str, ...], bool, bool]:
    """(stage, labels, whether it takes pairs, whether it lower-cases) of a model that a run has trained."""
    path = folder / HEAD_FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        stage = FinetuneStage.model_validate(head["stage"])
        labels = tuple(str(name) for name in head["label_names"])
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return stage, labels, head.get("pairs") is True, bool(tokenizer["do_lower_case"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: not the head of a trained classifier: {error}") from error


def _foreign_head(folder: Path) -> tuple[FinetuneStage, tuple[str, ...], bool, bool]:
    """The same of a model that another library has trained: labels from config.json, all its positions, single texts."""
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
    return stage, labels, False, files.lower_case


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
