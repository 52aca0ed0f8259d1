"""What an unknown key was probably meant to be: another spelling, another project's name, or a key of another
section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.fields import STAGE_CLASSES, annotation_at, keys_of, section_of
from configs.layers import dotted
from configs.names import OTHER_NAMES, nearest
from configs.schema import TASKS, Config, Strict
from configs.yaml_nodes import KeyPath


def meant_key(path: KeyPath, root: Mapping[str, Any]) -> str | None:
    """The key of the same section that the unknown key at `path` was probably meant to be."""
    key = str(path[-1])
    allowed = keys_of(_section(path, root))
    if _our_name(key) in allowed:
        return _our_name(key)
    return None if _our_name(key) in _places(root) else nearest(key, allowed)


def explain_unknown(path: KeyPath, root: Mapping[str, Any]) -> str:
    """The end of the error line for the unknown key at `path`. root: the values with the task of every stage."""
    key, section = str(path[-1]), _section(path, root)
    if "." in key:
        return "unknown key; a dotted key is for the command line, in YAML it is written as nested sections"
    meant = meant_key(path, root)
    if meant:
        return f"unknown key; did you mean '{meant}'?"
    if section is Config and key in (*TASKS, *_stage_names(root)):
        return f"unknown key; it belongs under stages: stages.{key}"
    if section in STAGE_CLASSES.values() and (tasks := _tasks_with(key)):
        return f"unknown key; '{_our_name(key)}' is only for stages with task: {' or '.join(tasks)}"
    far = _far_place(key, root) or _near_stage(key, section, root)
    if far:
        return f"unknown key here; did you mean '{far}'?"
    return f"unknown key; allowed here: {', '.join(keys_of(section))}"


def _tasks_with(key: str) -> list[str]:
    """The tasks whose stages have the key."""
    return [task for task, stage in STAGE_CLASSES.items() if _our_name(key) in keys_of(stage)]


def _far_place(key: str, root: Mapping[str, Any]) -> str | None:
    """A key of the same or a similar name in another section, dotted."""
    places = _places(root)
    name = _our_name(key) if _our_name(key) in places else nearest(key, places)
    return dotted(places[name]) if name else None


def _near_stage(key: str, section: type[Strict], root: Mapping[str, Any]) -> str | None:
    name = nearest(key, _stage_names(root)) if section is Config else None
    return f"stages.{name}" if name else None


def _section(path: KeyPath, root: Mapping[str, Any]) -> type[Strict]:
    return section_of(annotation_at(path[:-1], root)) or Config


def _our_name(key: str) -> str:
    return OTHER_NAMES.get(key.lower().replace("-", "_"), key)


def _stage_names(root: Mapping[str, Any]) -> Sequence[str]:
    stages = root.get("stages")
    return list(stages) if isinstance(stages, dict) else []


def _places(root: Mapping[str, Any]) -> dict[str, KeyPath]:
    """Every key of the schema with the place nearest to the top where it stands."""
    places: dict[str, KeyPath] = {}
    for path in _all_keys(root):
        places.setdefault(str(path[-1]), path)
    return places


def _all_keys(root: Mapping[str, Any]) -> Iterator[KeyPath]:
    names = _stage_names(root) or TASKS
    known = root if _stage_names(root) else {"stages": {name: {} for name in names}}
    queue: list[KeyPath] = [()]
    for path in queue:
        for key in keys_of(section_of(annotation_at(path, known)) or Config):
            yield (*path, key)
            if (*path, key) == ("stages",):
                queue += [("stages", name) for name in names]
            elif section_of(annotation_at((*path, key), known)) is not None:
                queue.append((*path, key))
