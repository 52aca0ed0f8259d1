"""Random weights under Transformers' names, written down here apart from the code that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from trainers.align import settings
from trainers.model.config import BertConfig


def encoder_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Transformers' names and shapes of the encoder with its pooler."""
    size, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (config.vocab_size, size),
        "bert.embeddings.position_embeddings.weight": (config.max_positions, size),
        "bert.embeddings.token_type_embeddings.weight": (config.num_token_types, size),
    }
    norms, linears = ["bert.embeddings.LayerNorm"], {"bert.pooler.dense": (size, size)}
    for block in range(config.num_layers):
        base = f"bert.encoder.layer.{block}"
        parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        linears |= {f"{base}.{part}": (size, size) for part in parts}
        linears |= {f"{base}.intermediate.dense": (inner, size), f"{base}.output.dense": (size, inner)}
        norms += [f"{base}.attention.output.LayerNorm", f"{base}.output.LayerNorm"]
    return {**shapes, **_with_biases(linears), **_norm_shapes(norms, size)}


def head_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the MLM, NSP and classification heads, and of the attention over fractions."""
    size = config.hidden_size
    linears = {
        "cls.predictions.transform.dense": (size, size),
        "cls.seq_relationship": (2, size),
        "classifier": (settings.NUM_CLASSES, size),
        "fractions.attention.dense": (size, size),
    }
    norms = _norm_shapes(["cls.predictions.transform.LayerNorm"], size)
    single = {"cls.predictions.bias": (config.vocab_size,), "fractions.attention.context": (size, 1)}
    return {**_with_biases(linears), **norms, **single}


def _with_biases(linears: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    weights: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linears.items()}
    return weights | {f"{name}.bias": shape[:1] for name, shape in linears.items()}


def _norm_shapes(names: list[str], size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (size,) for name in names for part in ("weight", "bias")}


def random_array(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Random values of a trained model's size; biases and LayerNorm are not at their initial 0 and 1, so that each one matters."""
    shift = 1.0 if name.endswith("LayerNorm.weight") else 0.0
    deviation = 0.02 if "embeddings.weight" in name else 0.08
    return (shift + deviation * rng.standard_normal(shape)).astype(np.float32)


def write_heads(directory: Path, config: BertConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Classifiers on chosen blocks; returns for each its (non-negative) blocks and pooling."""
    described, arrays = {}, {}
    for name, head in settings.HEADS.items():
        blocks = [block % config.num_layers for block in head["blocks"] or range(config.num_layers)]
        width = config.hidden_size * (len(blocks) if head["pooling"] == "concat" else 1)
        described[name] = {"blocks": blocks, "pooling": head["pooling"]}
        arrays[f"{name}.weight"] = random_array("", (settings.NUM_CLASSES, width), rng)
        arrays[f"{name}.bias"] = random_array("", (settings.NUM_CLASSES,), rng)
    save_file(arrays, directory / "heads.safetensors")
    return described
