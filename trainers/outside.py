"""Weights of other runs that stages start from: found, checked against this run's model, and pinned by their sha256.

What a finished stage started from is history and is kept as it was recorded. For the others the weights must still be those
that stages of this run with the same `init` were trained from: another run that changes later never changes this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from configs.errors import ConfigError
from configs.inits import Init
from configs.schema import Config
from configs.starts import check_fit, find_start, misfit, outside_starts
from trainers.data.cache import sha256_file
from trainers.model_store import ModelFiles, open_model


def prepare_starts(config: Config, run_dir: Path | None, model: ModelFiles) -> dict[str, Mapping[str, str] | None]:
    """For every stage {init, folder, sha256} of the other run's weights that it starts from, None when it needs none.

    Raises ConfigError when they are not there, do not fit, or have changed since a stage was trained from them.
    """
    outside = outside_starts(config)
    recorded = _recorded(run_dir) if run_dir is not None and outside else {}
    starts: dict[str, Mapping[str, str] | None] = dict.fromkeys(config.stages)
    hashes: dict[Path, str] = {}
    for name, init in outside.items():
        if run_dir is None:
            raise ConfigError(f"stages.{name}.init: {init} is known only within a run", "give --run-dir")
        known = recorded.get(name)
        if known is not None and known["init"] == str(init) and (run_dir / name / "done.json").is_file():
            starts[name] = known
            continue
        folder = _fitting_folder(init, run_dir.parent, f"stages.{name}.init", model)
        if folder not in hashes:
            hashes[folder] = sha256_file(folder / "model.safetensors")
        start = {"init": str(init), "folder": str(folder), "sha256": hashes[folder]}
        _check_unchanged(name, start, run_dir, recorded)
        starts[name] = start
    return starts


def _fitting_folder(init: Init, runs_dir: Path, key: str, model: ModelFiles) -> Path:
    folder = find_start(init, runs_dir, key)
    check_fit(folder, model.dir, key, model.name)
    other = open_model(folder, model.name)
    if other.lower_case != model.lower_case:
        raise misfit(key, folder, model.name, [f"do_lower_case {other.lower_case} instead of {model.lower_case}"])
    return folder


def _recorded(run_dir: Path) -> dict[str, Mapping[str, str]]:
    """The starts that an earlier preparation of this run has recorded."""
    try:
        stages = json.loads((run_dir / "prepared.json").read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: facts["start"] for name, facts in stages.items() if facts.get("start")}


def _check_unchanged(
    name: str, start: Mapping[str, str], run_dir: Path, recorded: Mapping[str, Mapping[str, str]]
) -> None:
    trained = [
        other
        for other, known in recorded.items()
        if known["init"] == start["init"] and known["sha256"] != start["sha256"] and _has_begun(run_dir / other)
    ]
    if trained:
        raise ConfigError(
            f"stages.{name}.init: {start['init']} has changed since {', '.join(trained)} began with it: model.safetensors in "
            f"{start['folder']} has another sha256",
            f"train with the new weights: {' '.join(f'--rerun {other}' for other in trained)}; or restore the old ones",
        )


def _has_begun(stage_dir: Path) -> bool:
    return (stage_dir / "done.json").is_file() or any((stage_dir / "checkpoints").glob("step-*"))
