"""Weights that come from elsewhere than the model: the folders of other runs' stages, and whether they fit this run's model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.inits import Init
from configs.loader import load_resolved
from configs.schema import Config

SHAPE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
    "max_position_embeddings",
)
"""Keys of config.json that must be equal."""
MAX_HOPS = 8


def outside_starts(config: Config) -> dict[str, Init]:
    """The stages that start from another run, each with the place that is meant."""
    starts = {name: config.stage_start(name) for name in config.stages}
    return {name: start for name, start in starts.items() if start.run is not None}


def find_start(init: Init, runs_dir: Path, key: str) -> Path:
    """The model folder of another run's stage. `key`: the config key to blame.

    Raises ConfigError when the run, the stage or the step is not there, or the stage is not finished.
    """
    for _ in range(MAX_HOPS):
        config, run_dir = _config_of(init, runs_dir, key), runs_dir / str(init.run)
        if init.step != 0:
            return _finished_folder(init, run_dir, key)
        start = config.stage_start(str(init.stage))
        if start.is_model:
            return _model_of(run_dir, key)
        if start.run is None:
            return _finished_folder(Init(start.stage, init.run, start.step), run_dir, key)
        init = start
    raise ConfigError(f"{key}: leads through more than {MAX_HOPS} runs", "name the run that trained the weights")


def _config_of(init: Init, runs_dir: Path, key: str) -> Config:
    path = runs_dir / str(init.run) / "config.yaml"
    if not path.is_file():
        known = sorted(each.parent.name for each in runs_dir.glob("*/config.yaml"))
        raise ConfigError(
            f"{key}: there is no run '{init.run}' in {runs_dir} (there are: {', '.join(known[:8]) or 'none yet'})",
            f"train it first: ./run.sh train CONFIG --name {init.run}; or choose another: ./run.sh runs",
        )
    config = load_resolved(path)
    if init.stage not in config.stages:
        raise ConfigError(
            f"{key}: run '{init.run}' has no stage '{init.stage}'; its stages: {', '.join(config.stages)}",
            f"name one of them, such as {init.run}/{next(iter(config.stages))}",
        )
    return config


def _finished_folder(init: Init, run_dir: Path, key: str) -> Path:
    folder = run_dir / init.folder
    if init.step is None and not (run_dir / str(init.stage) / "done.json").is_file():
        raise ConfigError(
            f"{key}: stage '{init.stage}' of run '{init.run}' is not finished", f"finish it: ./run.sh resume {init.run}"
        )
    if not (folder / "model.safetensors").is_file():
        raise _missing_model(folder, key)
    return folder


def _missing_model(folder: Path, key: str) -> ConfigError:
    return ConfigError(f"{key}: there is no model in {folder}{models_beside(folder)}", "name a step that was saved")


def models_beside(folder: Path) -> str:
    """The steps whose models are kept beside `folder` (STAGE/models/step-N), as the end of a sentence."""
    steps = sorted(int(each.name[5:]) for each in folder.parent.glob("step-*") if each.name[5:].isdigit())
    return f"; steps that were saved: {', '.join(map(str, steps)) or 'none'} (save_model_every)"


def _model_of(run_dir: Path, key: str) -> Path:
    prepared = _read_json(run_dir / "prepared.json")
    folder = Path(str(prepared.get("model_dir", "")))
    if not (folder / "model.safetensors").is_file():
        raise ConfigError(
            f"{key}: the model that run '{run_dir.name}' began with is no longer at {folder}",
            "set init: model, and model: to the same model",
        )
    return folder


def check_fit(folder: Path, model: Path, key: str, model_name: str) -> None:
    """Raises ConfigError unless the weights in `folder` have the shape and the vocabulary of this run's model."""
    theirs, ours = _read_json(folder / "config.json"), _read_json(model / "config.json")
    other = [
        f"{name} {theirs.get(name)} instead of {ours.get(name)}" for name in SHAPE if theirs.get(name) != ours.get(name)
    ]
    if _sha256(folder / "vocab.txt") != _sha256(model / "vocab.txt"):
        other.append("another vocabulary (vocab.txt)")
    if other:
        raise misfit(key, folder, model_name, other)


def misfit(key: str, folder: Path, model_name: str, differences: list[str]) -> ConfigError:
    """The weights of another run do not go with this run's model."""
    return ConfigError(
        f"{key}: {folder} does not fit the model {model_name}: {', '.join(differences)}",
        "set model: to the one that the other run was trained from",
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error})", "finish the other run first: ./run.sh resume RUN"
        ) from error
    return value if isinstance(value, dict) else {}


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})", "name a complete model folder") from error
