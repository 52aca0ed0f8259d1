"""Export for PaddleNLP: safetensors in Paddle's layout and under PaddleNLP's names, which it loads without any option.

PaddleNLP 3.0 takes a safetensors file for its own when its metadata say `format: np`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_safetensors

from trainers.engine.files import write_synced
from trainers.exporting.hf import what_is_left_out
from trainers.exporting.source import Trained
from trainers.init_head import HEAD_FILE

CLASSES = {"pooler": "BertForSequenceClassification", "pretraining": "BertForPretraining", "blocks": "BertModel"}


def fill_paddlenlp(trained: Trained, directory: Path) -> None:
    """Write the folder's files."""
    config = json.loads((trained.folder / "config.json").read_bytes())
    values = {**config, "architectures": [CLASSES[trained.head]], "dtype": "float32", "pool_act": "tanh", "fuse": False}
    values.pop("torch_dtype", None)
    if trained.head == "pooler":
        values |= {"num_labels": len(trained.label_names)}
    tensors = to_safetensors(_tensors(trained), metadata={"format": "np"})
    write_synced(directory / "model.safetensors", tensors)
    write_synced(directory / "config.json", json.dumps(values, indent=1, ensure_ascii=False).encode() + b"\n")
    for name in ("vocab.txt", "tokenizer_config.json", HEAD_FILE):
        write_synced(directory / name, (trained.folder / name).read_bytes())
    write_synced(directory / "README.md", readme(trained).encode())


def _tensors(trained: Trained) -> dict[str, np.ndarray]:
    """Our arrays are PaddleNLP's, but for the decoder, which it stores under two names."""
    arrays = {name: parameter.numpy() for name, parameter in trained.model.named_parameters()}
    if trained.head == "pretraining":
        arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"].copy()
        arrays["cls.predictions.decoder.bias"] = arrays["cls.predictions.decoder_bias"].copy()
    if trained.head == "blocks":  # a bare encoder has no prefix
        arrays = {name.removeprefix("bert."): array for name, array in arrays.items()}
    return arrays


def readme(trained: Trained) -> str:
    """How to load the folder, and what PaddleNLP cannot hold."""
    name = CLASSES[trained.head]
    return f"""# A BERT for PaddleNLP

    from paddlenlp.transformers import {name}, BertTokenizer
    tokenizer = BertTokenizer.from_pretrained(FOLDER)
    model = {name}.from_pretrained(FOLDER)
    model.eval()

{what_is_left_out(trained, "PaddleNLP")}"""
