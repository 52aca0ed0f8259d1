"""What is exported: the model folder of a finished stage, and what kind of head it has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from configs.errors import ConfigError, DataError
from configs.schema import Config, FinetuneStage, PretrainStage
from configs.stages import Stage
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.model.config import BertConfig
from trainers.model.folder import HEAD_FILE, build_model, load_folder, read_bert_config
from trainers.model.heads import BertForClassification, BertForPretraining

FORMATS = ("hf", "paddlenlp", "inference")
PLAIN_TENSORS = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True)
class Trained:
    """A model folder that a stage has written, loaded."""

    folder: Path
    stage: PretrainStage | FinetuneStage
    label_names: tuple[str, ...]
    config: BertConfig
    vocabulary: Vocabulary
    lower_case: bool
    model: Any

    @property
    def head(self) -> str:
        """pretraining; pooler or blocks (a linear classifier on it); other: anything that has been added since, such as several
        classifiers, and that no export knows."""
        if type(self.model) is BertForPretraining:
            return "pretraining"
        own = {name for name, _ in self.model.named_parameters() if not name.startswith("bert.")}
        if type(self.model) is not BertForClassification or own != set(PLAIN_TENSORS):
            return "other"
        return "pooler" if self.model.blocks is None else "blocks"


def allowed_formats(trained: Trained) -> tuple[str, ...]:
    """The formats that can hold a model with its head, or say in full what they leave out."""
    known = {"pretraining": ("hf", "paddlenlp"), "pooler": FORMATS, "blocks": FORMATS}
    return known.get(trained.head, ())


def check_format(trained: Trained, chosen: str) -> None:
    """ConfigError when a format cannot hold the model; says which ones can."""
    allowed = allowed_formats(trained)
    if chosen in allowed:
        return
    if not allowed:
        raise ConfigError(
            f"export: the head of this model ({type(trained.model).__name__}) is part of neither Transformers nor PaddleNLP, "
            "and the inference export does not know it either",
            f"use it as it is: ./run.sh predict {trained.folder}",
        )
    why = {"inference": "a pre-training stage classifies nothing"}.get(chosen, "it does not know this head")
    raise ConfigError(
        f"export: --format {chosen} cannot hold this model: {why}", f"choose --format {' or '.join(allowed)}"
    )


def last_finished(run_dir: Path, config: Config, stage: str | None) -> str:
    """The stage to export: the named one, else the last finished classifier, else the last finished stage. Raises ConfigError."""
    finished = [name for name in config.stages if (run_dir / name / "done.json").exists()]
    if stage is not None and stage not in finished:
        shown = ", ".join(finished) or "none yet"
        raise ConfigError(f"stage '{stage}' of run {run_dir.name} is not finished; finished: {shown}")
    if not finished:
        raise ConfigError(f"run {run_dir.name} has no finished stage", f"finish it: ./run.sh resume {run_dir.name}")
    classifiers = [name for name in finished if config.stages[name].task == "finetune"]
    return stage or (classifiers or finished)[-1]


def open_trained(folder: Path) -> Trained:
    """Load STAGE/model. Raises DataError when it is not a folder that a run has written."""
    path = folder / HEAD_FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        stage: PretrainStage | FinetuneStage = TypeAdapter(Stage).validate_python(head["stage"])
        labels = tuple(str(name) for name in head["label_names"])
        lower_case = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["do_lower_case"] is True
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: not a model that a run has trained: {error}") from error
    config = read_bert_config(folder)
    model = build_model(stage, config, len(labels))
    loaded = load_folder(model, folder)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    return Trained(folder, stage, labels, config, load_vocabulary(folder / "vocab.txt"), lower_case, model)
