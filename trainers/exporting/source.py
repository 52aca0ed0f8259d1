"""What is exported: the model folder of a finished stage, and what kind of head it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataError
from configs.schema import ClassifierStage, Config, FinetuneStage, MultitaskStage, PretrainStage
from trainers.data.vocabulary import Vocabulary, load_vocabulary
from trainers.init_head import HEAD_FILE
from trainers.model.config import BertConfig
from trainers.model.folder import (
    ModelSource,
    build_model,
    load_folder,
    read_bert_config,
    read_head_file,
    save_folder,
)
from trainers.model.heads import BertForClassification, BertForPretraining
from trainers.trained import last_one, load_classifier, read_lower_case

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
        """pretraining; pooler or blocks (a linear classifier on it); other: what no export knows, such as a bilstm or the fractions of
        long texts."""
        if type(self.model) is BertForPretraining:
            return "pretraining"
        own = {name for name, _ in self.model.named_parameters() if not name.startswith("bert.")}
        if (
            type(self.model) is not BertForClassification
            or own != set(PLAIN_TENSORS)
            or self.model.fractions is not None
        ):
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
            f"export: the head of this model ({_described(trained)}) is part of neither Transformers nor PaddleNLP, "
            "and the inference export does not know it either",
            f"use it as it is: ./run.sh predict {trained.folder}",
        )
    why = {"inference": "a pre-training stage classifies nothing"}.get(chosen, "it does not know this head")
    raise ConfigError(
        f"export: --format {chosen} cannot hold this model: {why}", f"choose --format {' or '.join(allowed)}"
    )


def _described(trained: Trained) -> str:
    stage = trained.stage
    if isinstance(stage, FinetuneStage) and stage.hierarchical is not None:
        return f"hierarchical: {stage.hierarchical}"
    if isinstance(stage, FinetuneStage) and stage.classifier != "linear":
        return f"classifier: {stage.classifier}"
    return type(trained.model).__name__


def last_finished(run_dir: Path, config: Config, stage: str | None) -> str:
    """The stage to export: the named one, else the last finished classifier, else the last finished stage. Raises ConfigError."""
    finished = [name for name in config.stages if (run_dir / name / "done.json").exists()]
    if stage is not None and stage not in finished:
        shown = ", ".join(finished) or "none yet"
        raise ConfigError(
            f"stage '{stage}' of run {run_dir.name} is not finished; finished: {shown}",
            f"choose one of them with --stage {finished[-1]}"
            if finished
            else f"finish it: ./run.sh resume {run_dir.name}",
        )
    if not finished:
        raise ConfigError(f"run {run_dir.name} has no finished stage", f"finish it: ./run.sh resume {run_dir.name}")
    classifiers = [name for name in finished if config.stages[name].task != "pretrain"]
    return stage or last_one(run_dir.name, classifiers or finished)


def open_trained(folder: Path) -> Trained:
    """Load STAGE/model. Raises DataError when it is not a folder that a run has written, ConfigError for a multi-task model."""
    head_file = read_head_file(folder)
    if head_file is None:
        raise DataError(f"{folder / HEAD_FILE}: missing: not a model that a run has trained")
    if isinstance(head_file.stage, MultitaskStage):
        heads = ", ".join(head_file.heads)
        raise ConfigError(
            f"export: {folder} has a classifier per data set ({heads})", "choose one of them: --head NAME"
        )
    config, labels = read_bert_config(folder), head_file.head.label_names
    model = build_model(head_file.stage, config, len(labels))
    loaded = load_folder(model, folder)
    if loaded.new:
        raise DataError(f"{folder / 'model.safetensors'}: lacks {', '.join(loaded.new)}")
    model.eval()
    vocabulary = load_vocabulary(folder / "vocab.txt")
    return Trained(folder, head_file.stage, labels, config, vocabulary, read_lower_case(folder), model)


def write_one_head(folder: Path, name: str, target: Path) -> None:
    """Write the encoder of a multi-task model and the classifier of one data set as the model folder of a single-task stage.

    Raises DataError, ConfigError for a name that is none of its data sets, CannotWriteError.
    """
    chosen = load_classifier(folder, name)
    values = {key: getattr(chosen.stage, key) for key in ClassifierStage.model_fields}
    stage = FinetuneStage.model_validate({"task": "finetune", **values})
    arrays = {key: parameter.numpy() for key, parameter in chosen.model.named_parameters()}
    source = ModelSource(folder, chosen.lower_case)
    save_folder(target, arrays, read_bert_config(folder), stage, source, chosen.label_names, pairs=chosen.pairs)
