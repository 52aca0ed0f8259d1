"""A model folder that Transformers and PaddleNLP load: config.json, vocab.txt, model.safetensors, and how the head was trained.

`bert4doc.json` beside them holds what neither can express (which blocks feed the classifier, truncation), for evaluation and prediction.
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

from configs.errors import ConfigError
from configs.schema import FinetuneStage, PretrainStage
from trainers.engine.files import commit_directory, write_synced
from trainers.model.config import BertConfig
from trainers.model.heads import BertForClassification, BertForPretraining
from trainers.model.weights import LoadReport, load_arrays, read_config_json, read_folder_weights, to_hf_arrays

HEAD_FILE = "bert4doc.json"


@dataclass(frozen=True)
class ModelSource:
    """A folder to start from, already resolved to this machine."""

    directory: Path
    lower_case: bool


def read_bert_config(folder: Path) -> BertConfig:
    """The encoder's shape from a folder's config.json."""
    return BertConfig.from_json(read_config_json(folder), str(folder / "config.json"))


def chosen_blocks(stage: FinetuneStage, num_layers: int) -> tuple[int, ...] | None:
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
    stage: PretrainStage | FinetuneStage, config: BertConfig, num_classes: int
) -> BertForPretraining | BertForClassification:
    """The model of a stage, randomly initialised from Paddle's generator."""
    if stage.max_length > config.max_positions:
        raise ConfigError(
            f"max_length {stage.max_length} is more than the model's {config.max_positions} positions",
            f"set max_length to at most {config.max_positions}",
        )
    config = config.with_dropout(stage.dropout)
    if isinstance(stage, PretrainStage):
        return BertForPretraining(config, use_nsp=stage.nsp)
    return BertForClassification(config, num_classes, chosen_blocks(stage, config.num_layers), stage.pooling)


def load_folder(model: nn.Layer, folder: Path) -> LoadReport:
    """Load a folder's weights into a model; heads may be new."""
    return load_arrays(model, *read_folder_weights(folder))


def _architecture(stage: PretrainStage | FinetuneStage) -> str:
    if isinstance(stage, PretrainStage):
        return "BertForPreTraining"
    return "BertForSequenceClassification" if stage.layers == "pooler" else "BertModel"


def save_folder(
    target: Path,
    arrays: Mapping[str, np.ndarray],
    config: BertConfig,
    stage: PretrainStage | FinetuneStage,
    source: ModelSource,
    label_names: Sequence[str],
    pairs: bool = False,
) -> None:
    """Write a folder all at once. `arrays`: weights under our names; `pairs`: it was trained on pairs of texts.

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
    head = {"stage": stage.model_dump(mode="json"), "label_names": list(label_names), "pairs": pairs}

    def fill(directory: Path) -> None:
        write_synced(directory / "model.safetensors", to_safetensors(tensors, metadata={"format": "pt"}))
        write_synced(directory / "vocab.txt", (source.directory / "vocab.txt").read_bytes())
        for name, value in (("config.json", json_config), ("tokenizer_config.json", tokenizer), (HEAD_FILE, head)):
            write_synced(directory / name, json.dumps(value, indent=1, ensure_ascii=False).encode())

    commit_directory(target, fill)
