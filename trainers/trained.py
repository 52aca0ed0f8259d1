"""A trained classifier of a run, read back from STAGE/model for evaluation and prediction by one process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataError
from configs.schema import ClassifierStage, Config, PretrainStage
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.engine.ranks import Ranks, tune_device
from trainers.model.folder import HEAD_FILE, HeadFile, build_model, load_folder, read_bert_config, read_head_file


@dataclass(frozen=True)
class Classifier:
    """Model, vocabulary and labels of a finished fine-tuning stage."""

    folder: Path
    model: Any
    stage: ClassifierStage
    label_names: tuple[str, ...]
    vocabulary: Vocabulary
    lower_case: bool


def finished_classifier(run_dir: Path, config: Config, stage: str | None) -> str:
    """The stage to use: the named one, else the last finished stage with a classifier.

    Raises ConfigError when there is none.
    """
    finished = [
        name
        for name, settings in config.stages.items()
        if settings.task in ("finetune", "multitask") and (run_dir / name / "done.json").exists()
    ]
    if stage is not None and stage not in finished:
        shown = ", ".join(finished) or "none yet"
        raise ConfigError(f"stage '{stage}' of run {run_dir.name} is no finished classifier; finished: {shown}")
    if not finished:
        raise ConfigError(
            f"run {run_dir.name} has no finished classifier", f"finish it: ./run.sh resume {run_dir.name}"
        )
    return stage or finished[-1]


def load_classifier(folder: Path, head: str | None = None) -> Classifier:
    """Load STAGE/model. `head`: the data set whose classifier to use, needed for a multi-task model alone.

    Raises DataError when it is not a folder that a run has written, ConfigError when `head` is missing or is none of its own.
    """
    head_file = read_head_file(folder)
    if head_file is None or isinstance(head_file.stage, PretrainStage):
        raise DataError(f"{folder / HEAD_FILE}: not the head of a trained classifier")
    stage = head_file.stage
    labels = head_file.label_names if head is None and not head_file.heads else _labels_of_head(folder, head_file, head)
    model = build_model(stage, read_bert_config(folder), len(labels))
    loaded = load_folder(model, folder, head)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    vocabulary = load_vocabulary(folder / "vocab.txt")
    return Classifier(folder, model, stage, labels, vocabulary, _lower_case(folder))


def _labels_of_head(folder: Path, head_file: HeadFile, head: str | None) -> tuple[str, ...]:
    """The labels of a multi-task model's classifier."""
    heads = ", ".join(head_file.heads)
    if head is not None and head in head_file.heads:
        return head_file.heads[head]
    if not heads:
        raise ConfigError(f"'{head}': {folder} has one classifier only", "leave the data set out")
    what = f"'{head}' is no data set of it" if head is not None else "which one?"
    raise ConfigError(f"{folder} has a classifier per data set ({heads}); {what}", f"name one of them: {heads}")


def _lower_case(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["do_lower_case"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not written by a run: {error}") from error


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
