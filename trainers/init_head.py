"""Whether the classifier that `init_head` names has the labels of the stage that takes it over, known before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.schema import Config, FinetuneStage

HEAD_FILE = "bert4doc.json"
MAX_SHOWN = 8


def check_init_heads(config: Config, run_dir: Path | None, stages: Mapping[str, Mapping[str, Any]]) -> None:
    """stages: prepared.json's facts of every stage. Raises ConfigError for the first classifier that an unfinished stage cannot take
    over: it has other labels, or is not there."""
    for name, stage in config.stages.items():
        finished = run_dir is not None and (run_dir / name / "done.json").is_file()
        if isinstance(stage, FinetuneStage) and stage.init_head is not None and not finished:
            key = f"stages.{name}.init_head"
            theirs = _labels_of_start(config, name, stage.init_head, key, stages)
            check_same_labels(key, stage.init_head, theirs, stages[name]["label_names"])


def check_same_labels(key: str, head: str, theirs: Sequence[str], ours: Sequence[str]) -> None:
    """Raises ConfigError unless a classifier's classes are those of the stage's data, in the same order: they have no other names."""
    if list(theirs) != list(ours):
        raise ConfigError(
            f"{key}: the classifier of {head} has {_shown(theirs)}, the stage's data has {_shown(ours)}",
            "leave init_head out for a new classifier",
        )


def _labels_of_start(
    config: Config, name: str, head: str, key: str, stages: Mapping[str, Mapping[str, Any]]
) -> Sequence[str]:
    start = config.stage_start(name)
    if start.run is None:  # the schema has made sure of the multi-task stage and its data set
        return list(stages[str(start.stage)]["data_sets"][head]["label_names"])
    folder = Path(stages[name]["start"]["folder"])
    heads = _heads(folder)
    if head not in heads:
        known = f"has {', '.join(heads)}" if heads else "is no multi-task model"
        raise ConfigError(f"{key}: {head}; {folder} {known}", "name one that it has, or leave init_head out")
    return heads[head]


def _heads(folder: Path) -> dict[str, list[str]]:
    """The labels of each classifier of a multi-task model folder; empty for other models."""
    try:
        heads = json.loads((folder / HEAD_FILE).read_text(encoding="utf-8")).get("heads") or {}
        return {name: list(map(str, head["label_names"])) for name, head in heads.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _shown(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - MAX_SHOWN} more" if len(labels) > MAX_SHOWN else ""
    return f"{len(labels)} classes ({', '.join(labels[:MAX_SHOWN])}{more})"
