"""A model folder that Transformers and PaddleNLP load: config.json, vocab.txt, model.safetensors, and how the head was trained.

`bert4doc.json` beside them holds what neither can express (which blocks feed the classifier, its head, truncation, fractions),
for evaluation and prediction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from safetensors.numpy import save as to_safetensors

from configs.errors import ConfigError, DataError
from configs.schema import ClassifierStage, FinetuneStage, MultitaskStage, PretrainStage, StageBase
from trainers.engine.files import commit_directory, write_synced
from trainers.init_head import HEAD_FILE
from trainers.model.config import BertConfig
from trainers.model.heads import BertForClassification, BertForMultitask, BertForPretraining
from trainers.model.lstm import BertWithLstm
from trainers.model.weights import (
    LoadReport,
    load_arrays,
    read_config_json,
    read_folder_weights,
    take_head,
    to_hf_arrays,
)

STAGES: Mapping[str, type[PretrainStage | FinetuneStage | MultitaskStage]] = {
    "pretrain": PretrainStage,
    "finetune": FinetuneStage,
    "multitask": MultitaskStage,
}


@dataclass(frozen=True)
class ModelSource:
    """A folder to start from, already resolved to this machine."""

    directory: Path
    lower_case: bool


def read_bert_config(folder: Path) -> BertConfig:
    """The encoder's shape from a folder's config.json."""
    return BertConfig.from_json(read_config_json(folder), str(folder / "config.json"))


@dataclass(frozen=True)
class Head:
    """What a classifier's classes are called, and what it was trained on."""

    label_names: tuple[str, ...]
    """Empty where there is no such classifier."""
    pairs: bool = False
    """It was trained on pairs of texts."""

    def to_json(self) -> dict[str, Any]:
        """As bert4doc.json holds it."""
        return {"label_names": list(self.label_names), "pairs": self.pairs}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Head:
        """Reads `to_json`; raises KeyError or TypeError on anything else."""
        return cls(tuple(map(str, values["label_names"])), values.get("pairs") is True)


@dataclass(frozen=True)
class HeadFile:
    """bert4doc.json: the stage that trained a folder's heads."""

    stage: PretrainStage | FinetuneStage | MultitaskStage
    head: Head
    heads: dict[str, Head]
    """By data set, of a multi-task model; empty for others."""


def read_head_file(folder: Path) -> HeadFile | None:
    """None for a folder without one, which comes from elsewhere. Raises DataError for one that no run has written."""
    path = folder / HEAD_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        stage = STAGES[values["stage"]["task"]].model_validate(values["stage"])
        heads = {name: Head.from_json(head) for name, head in values.get("heads", {}).items()}
        return HeadFile(stage, Head.from_json(values), heads)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not written by a run: {error}", "use the model folder of a finished stage") from error


def chosen_blocks(stage: ClassifierStage, num_layers: int) -> tuple[int, ...] | None:
    """Block indices that feed the classifier, None for the pooler. Raises ConfigError for a block that the model lacks."""
    if stage.layers == "pooler":
        return None
    if stage.layers == "all":
        return tuple(range(num_layers))
    beyond = [block for block in stage.layers if block >= num_layers]
    if beyond:
        raise ConfigError(
            f"layers: block {beyond[0]} does not exist: the model has {num_layers} encoder blocks",
            f"choose from 0 to {num_layers - 1}",
        )
    return tuple(stage.layers)


def build_model(
    stage: PretrainStage | ClassifierStage, config: BertConfig, num_classes: int
) -> BertForPretraining | BertForClassification | BertWithLstm:
    """The model of a stage with one classifier or with the pre-training heads, randomly initialised from Paddle's generator."""
    config = _fitting(stage, config)
    if isinstance(stage, PretrainStage):
        return BertForPretraining(config, use_nsp=stage.nsp)
    if stage.classifier == "bilstm":
        return BertWithLstm(config, num_classes, stage.lstm_size)
    blocks = chosen_blocks(stage, config.num_layers)
    return BertForClassification(config, num_classes, blocks, stage.pooling, stage.hierarchical)


def build_multitask(stage: MultitaskStage, config: BertConfig, num_classes: Mapping[str, int]) -> BertForMultitask:
    """The model of a multi-task stage, randomly initialised from Paddle's generator. `num_classes`: by data set."""
    config = _fitting(stage, config)
    blocks = chosen_blocks(stage, config.num_layers)
    return BertForMultitask(config, num_classes, blocks, stage.pooling, stage.hierarchical)


def _fitting(stage: StageBase, config: BertConfig) -> BertConfig:
    """The model's shape with the stage's dropout. ConfigError when it is too short for the stage."""
    if stage.max_length > config.max_positions:
        raise ConfigError(
            f"max_length {stage.max_length} is more than the model's {config.max_positions} positions",
            f"set max_length to at most {config.max_positions}",
        )
    return config.with_dropout(stage.dropout)


def load_folder(model: nn.Layer, folder: Path, head: str | None = None) -> LoadReport:
    """Load a folder's weights into a model; heads may be new. `head`: the data set of a multi-task model whose classifier is taken."""
    arrays, where = read_folder_weights(folder)
    return load_arrays(model, arrays if head is None else take_head(arrays, head), where)


def _architecture(stage: PretrainStage | ClassifierStage) -> str:
    """The class of Transformers that computes the same; a bare encoder where it has none."""
    if isinstance(stage, PretrainStage):
        return "BertForPreTraining"
    plain = stage.layers == "pooler" and stage.classifier == "linear" and stage.hierarchical is None
    return "BertForSequenceClassification" if plain and isinstance(stage, FinetuneStage) else "BertModel"


def save_folder(
    target: Path,
    arrays: Mapping[str, np.ndarray],
    config: BertConfig,
    stage: PretrainStage | ClassifierStage,
    source: ModelSource,
    label_names: Sequence[str],
    heads: Mapping[str, Head] | None = None,
    pairs: bool = False,
) -> None:
    """Write a folder all at once. `arrays`: weights under our names; `heads`: of every data set of a multi-task model; `pairs`: the one
    classifier was trained on pairs of texts.

    Raises CannotWriteError.
    """
    architecture = _architecture(stage)
    tensors = to_hf_arrays(arrays)
    if architecture == "BertModel":
        # A bare encoder has no prefix; with it PaddleNLP would find no tensor and keep random weights.
        tensors = {name.removeprefix("bert."): array for name, array in tensors.items()}
    json_config: dict[str, Any] = {
        "architectures": [architecture],
        **config.to_json(),
        "torch_dtype": "float32",
    }
    if label_names:
        json_config["id2label"] = {str(index): name for index, name in enumerate(label_names)}
        json_config["label2id"] = {name: index for index, name in enumerate(label_names)}
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": source.lower_case,
        "model_max_length": config.max_positions,
    }
    head: dict[str, Any] = {"stage": stage.model_dump(mode="json"), **Head(tuple(label_names), pairs).to_json()}
    if heads is not None:
        head["heads"] = {name: each.to_json() for name, each in heads.items()}

    def fill(directory: Path) -> None:
        write_synced(directory / "model.safetensors", to_safetensors(tensors, metadata={"format": "pt"}))
        write_synced(directory / "vocab.txt", (source.directory / "vocab.txt").read_bytes())
        for name, value in (("config.json", json_config), ("tokenizer_config.json", tokenizer), (HEAD_FILE, head)):
            write_synced(directory / name, json.dumps(value, indent=1, ensure_ascii=False).encode())

    commit_directory(target, fill)
