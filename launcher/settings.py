"""What shapes the result of a stage, as flat keys: the base on which a changed config is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from configs.schema import Config, MultitaskStage, PretrainStage, Stage
from configs.sweeps import REPETITIONS

NOT_SETTINGS = {"data", "seed", "group", "init", "save_model_every"}
"""Keys of a stage that are told in another way below, or leave its result as it is."""
UNSEEN_BY_PRETRAINING = ("data.validation", "data.subset.test", "data.files.test", "data.files.validation")
"""Pre-training takes all rows of its splits, never the test split."""

Settings = Mapping[str, Any]
Change = tuple[str, Any, Any]
"""(key as the user writes it, old value, new value)"""


def stage_settings(config: Config, name: str) -> dict[str, Any]:
    """Flat keys and JSON values of everything that shapes a stage's result, wherever in the config it stands."""
    stage = config.stages[name]
    settings = dict(_flatten(stage.model_dump(mode="json", exclude=NOT_SETTINGS)))
    if uses_data(stage):
        settings |= _flatten({"data": config.stage_data(name).model_dump(mode="json")})
    if isinstance(stage, PretrainStage):
        settings = {key: value for key, value in settings.items() if key not in UNSEEN_BY_PRETRAINING}
    settings |= {"init": str(config.stage_start(name)), "seed": config.stage_seed(name), "model": config.model}
    if isinstance(stage, PretrainStage) and stage.leave_out_tests:
        settings["left out"] = [data.model_dump(mode="json") for data in config.labelled_data()]
    return settings | dict(_flatten({"amp": config.amp.model_dump(mode="json")}))


def uses_data(stage: Stage) -> bool:
    """Whether a stage reads one data section; the others name their data sets or corpora themselves."""
    return not isinstance(stage, MultitaskStage) and not (isinstance(stage, PretrainStage) and stage.corpora)


def repeated_groups(config: Config) -> tuple[str, ...]:
    """The groups whose members are one experiment repeated: they differ in nothing but the seed or the fold."""
    kinds: dict[str, set[str]] = {}
    for name, stage in config.stages.items():
        if stage.group is not None:
            same = {key: value for key, value in stage_settings(config, name).items() if key not in REPETITIONS}
            kinds.setdefault(stage.group, set()).add(json.dumps(same, sort_keys=True))
    return tuple(group for group, found in kinds.items() if len(found) == 1 and len(config.members(group)) > 1)


def changes(old: Settings, config: Config, name: str) -> list[Change]:
    """What differs between recorded settings of a stage and those that it has now."""
    new = stage_settings(config, name)
    keys = [*old, *(key for key in new if key not in old)]
    return [
        (written_key(config, name, key), old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)
    ]


def written_key(config: Config, name: str, key: str) -> str:
    """Where a setting stands in the config."""
    section = key.partition(".")[0]
    stage = config.stages[name]
    inherited = (section == "data" and uses_data(stage) and config.stage_data(name) is config.data) or (
        section == "seed" and stage.seed is None
    )
    return key if section in ("model", "amp") or inherited else f"stages.{name}.{key}"


def launch_changes(old: Config, new: Config) -> list[Change]:
    """Changed values of the launch that a stage cannot take on halfway: they change its last bits."""
    before, after = (
        dict(_flatten({"launch": old.launch.model_dump()})),
        dict(_flatten({"launch": new.launch.model_dump()})),
    )
    keys = [key for key in {**before, **after} if key.startswith(("launch.threads_per_rank", "launch.env"))]
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def shown(change: Change) -> str:
    """`stages.finetune.lr: 2e-05 -> 3e-05`."""
    key, before, after = change
    return f"{key}: {_text(before)} -> {_text(after)}"


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _text(value: Any) -> str:
    if value is None:
        return "(not set)"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
