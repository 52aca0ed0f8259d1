"""Which names `model:` may have, and what a model's size asks of the stages: told alike by the plan and by preparation."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from configs.errors import ConfigError
from configs.schema import ClassifierStage, Config

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
        if isinstance(stage, ClassifierStage):
            _check_blocks(f"stages.{name}", stage, model, num_blocks)


def _check_blocks(place: str, stage: ClassifierStage, model: str, num_blocks: int) -> None:
    if not isinstance(stage.layers, str) and max(stage.layers) >= num_blocks:
        raise ConfigError(
            f"{place}.layers: {max(stage.layers)}; the model {model} has blocks 0 to {num_blocks - 1}",
            f"set {place}.layers to some of them, or to all",
        )
    if stage.layer_rates is not None and len(stage.layer_rates) != num_blocks:
        raise ConfigError(
            f"{place}.layer_rates: {len(stage.layer_rates)} rates; the model {model} has {num_blocks} blocks",
            f"give {num_blocks} rates, the lowest block first",
        )
    if stage.rate_bands is not None and num_blocks < 3:
        raise ConfigError(
            f"{place}.rate_bands: {stage.rate_bands:g}; the model {model} has {num_blocks} blocks, too few for three bands",
            f"use {place}.layer_decay or {place}.layer_rates",
        )
    if isinstance(stage.freeze, int) and stage.freeze > num_blocks:
        raise ConfigError(
            f"{place}.freeze: {stage.freeze}; the model {model} has {num_blocks} blocks",
            f"set {place}.freeze to {num_blocks} or less, or to encoder",
        )


def _known() -> str:
    return ", ".join([MINILM, *REPOSITORIES])
