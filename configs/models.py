"""Which names `model:` may have, and what a model's size asks of the stages: told alike by the plan and by preparation."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import Config, FinetuneStage

MINILM = "all-minilm-l6-v2"
REPOSITORIES = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "bert-large-uncased": "google-bert/bert-large-uncased",
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-large-cased": "google-bert/bert-large-cased",
    "bert-base-chinese": "google-bert/bert-base-chinese",
    "bert-base-multilingual-cased": "google-bert/bert-base-multilingual-cased",
    "bert-base-multilingual-uncased": "google-bert/bert-base-multilingual-uncased",
    "bert-large-uncased-whole-word-masking": "google-bert/bert-large-uncased-whole-word-masking",
    "bert-large-cased-whole-word-masking": "google-bert/bert-large-cased-whole-word-masking",
}
"""Known model names and the Hugging Face repositories that hold their weights as safetensors."""


def local_folder(name: str) -> Path | None:
    """The folder that `model:` names; None for a name of a known model. ConfigError for a folder that is not there
    and for a name that is not known."""
    if name.startswith((".", "~", "/")) or os.sep in name or Path(name).is_dir():
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"model: {name} is no folder", f"use an existing folder or one of: {_known()}")
        return folder
    if name != MINILM and name not in REPOSITORIES:
        close = difflib.get_close_matches(name, [MINILM, *REPOSITORIES], n=1, cutoff=0.5)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"model: unknown name '{name}'.{meant}", f"use a folder or one of: {_known()}")
    return None


def check_fits_model(config: Config, model: str, num_positions: int, num_blocks: int) -> None:
    """ConfigError for a stage whose lengths (tokens) or blocks the model does not have."""
    for name, stage in config.stages.items():
        if stage.max_length > num_positions:
            raise ConfigError(
                f"stages.{name}.max_length: {stage.max_length}; the model {model} has {num_positions} positions",
                f"set stages.{name}.max_length to {num_positions} or less",
            )
        if isinstance(stage, FinetuneStage) and not isinstance(stage.layers, str) and max(stage.layers) >= num_blocks:
            raise ConfigError(
                f"stages.{name}.layers: {max(stage.layers)}; the model {model} has blocks 0 to {num_blocks - 1}",
                f"set stages.{name}.layers to some of them, or to all",
            )


def _known() -> str:
    return ", ".join([MINILM, *REPOSITORIES])
