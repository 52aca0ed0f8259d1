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


@dataclass(frozen=True)
class Classifier:
    """Model, vocabulary and labels of a finished fine-tuning stage."""

    folder: Path
    model: Any
    stage: FinetuneStage
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    lower_case: bool


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
    """Load STAGE/model. Raises DataError when it is not a folder that a run has written."""
    path = folder / HEAD_FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        stage = FinetuneStage.model_validate(head["stage"])
        labels = tuple(str(name) for name in head["label_names"])
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: not the head of a trained classifier: {error}") from error
    model = build_model(stage, read_bert_config(folder), len(labels))
    loaded = load_folder(model, folder)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    vocabulary = load_vocabulary(folder / "vocab.txt")
    return Classifier(folder, model, stage, labels, vocabulary, bool(tokenizer["do_lower_case"]))


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
