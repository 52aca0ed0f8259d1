"""What shapes the result of a stage, as flat keys: the base on which a changed config is judged."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from configs.schema import Config, DataConfig, MultitaskStage, PretrainStage, Stage
from configs.sweeps import REPETITIONS

NOT_SETTINGS = {"data", "seed", "group", "swept_from", "init", "save_model_every"}
"""Keys of a stage that are told in another way below, or leave its result as it is."""
UNSEEN_BY_PRETRAINING = ("data.validation", "data.subset.test", "data.files.validation")
"""Pre-training takes all rows of its splits, never the test split."""
LEFT_OUT = "left_out_tests"
DECIDE_TESTS = (
    "labels",
    "files.test",
    "columns.text",
    "columns.text_pair",
    "columns.label",
    "header",
    "encoding",
    "on_bad_row",
    "max_bad_rows",
)
"""Beside data set and path: what of a data section decides the rows of its test split."""

MAX_ITEMS = 6
"""Most items of a list that are shown."""

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
        unseen, usual = _unseen_by_pretraining(config, name), _usual_data()
        settings = {key: usual[key] if key in unseen else value for key, value in settings.items()}
    settings |= {"init": str(config.stage_start(name)), "seed": config.stage_seed(name), "model": config.model}
    if isinstance(stage, PretrainStage) and stage.leave_out_tests:
        settings[LEFT_OUT] = sorted(
            {_test_split(data) for data in (*config.stage_corpora(name), *config.labelled_data())}
        )
    return settings | dict(_flatten({"amp": config.amp.model_dump(mode="json")}))


def _unseen_by_pretraining(config: Config, name: str) -> tuple[str, ...]:
    """The keys of a stage's data section that leave its corpus as it is."""
    unseen = list(UNSEEN_BY_PRETRAINING)
    for data in config.stage_corpora(name):
        unseen += ["data.files.test"] if data.overlap == "report" else []
        unseen += ["data.folds", "data.fold"] if data.subset.per_class is None else []
        drawn = (data.subset.train, data.subset.unsup, data.subset.per_class)
        unseen += ["data.labels"] if drawn == (None, None, None) else []
    return tuple(unseen)


@functools.cache
def _usual_data() -> dict[str, Any]:
    """The flat keys of a data section, `data.` before each, that says nothing but its data set."""
    return dict(_flatten({"data": DataConfig(dataset="trec").model_dump(mode="json")}))


def _test_split(data: DataConfig) -> str:
    """What decides the rows of a test split, as short text: `trec`, `tsv /d files.test=t.tsv`."""
    values, usual = dict(_flatten(data.model_dump(mode="json"))), _usual_data()
    other = [f"{key}={values[key]}" for key in DECIDE_TESTS if values[key] != usual[f"data.{key}"]]
    return " ".join([data.dataset, *([data.path] if data.path is not None else []), *other])


def uses_data(stage: Stage) -> bool:
    """Whether a stage reads one data section; the others name their data sets or corpora themselves."""
    return not isinstance(stage, MultitaskStage) and not (isinstance(stage, PretrainStage) and stage.corpora)


def repeated_groups(config: Config) -> tuple[str, ...]:
    """The groups whose members are one experiment repeated: they differ in nothing but the seed or the fold, also in the
    stages that they start from."""
    found: dict[str, bool] = {}
    for stage in config.stages.values():
        if stage.group is not None:
            _is_repeated(config, stage.group, found)
    return tuple(
        group for group in dict.fromkeys(stage.group for stage in config.stages.values()) if group and found[group]
    )


def _is_repeated(config: Config, group: str, found: dict[str, bool]) -> bool:
    """Fills `found`, which ends groups that start from each other's members as well: those are no repetitions."""
    if group not in found:
        found[group] = False
        members = config.members(group)
        kinds = {json.dumps(_apart_from_repetition(config, name, found), sort_keys=True) for name in members}
        found[group] = len(kinds) == 1 and len(members) > 1
    return found[group]


def _apart_from_repetition(config: Config, name: str, found: dict[str, bool]) -> Settings:
    """A stage's settings without those that repeat it; a start in a repeated group is that group."""
    same = {key: value for key, value in stage_settings(config, name).items() if key not in REPETITIONS}
    start = config.stage_start(name)
    group = config.stages[start.stage].group if start.run is None and start.stage is not None else None
    if group is not None and _is_repeated(config, group, found):
        same["init"] = f"any of {replace(start, stage=group)}"
    return same


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
    if key.endswith(LEFT_OUT) and before and after:
        before, after = (
            [each for each in mine if each not in other] for mine, other in ((before, after), (after, before))
        )
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
    if isinstance(value, (list, tuple)):
        shown_items = ", ".join(map(str, value[:MAX_ITEMS])) or "(none)"
        return shown_items + (f" and {len(value) - MAX_ITEMS} more" if len(value) > MAX_ITEMS else "")
    return str(value)
