"""Checks a tree of plain values against the schema and finds all errors at once, also those that hide behind
others.

pydantic stops at the first kind of trouble: a section with one bad value is never checked for values that do
not go together. So the bad values are replaced by ones that are surely valid, the rest is checked again, and
only complaints that do not rest on a replaced value count.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from configs.fields import annotation_at, kinds, task_of, value_at
from configs.layers import Fault, Tree, fault_at
from configs.schema import COLLECT_PROBLEMS, TASKS, Config, FinetuneStage, PretrainStage, Problem, Strict
from configs.yaml_nodes import KeyPath

MAX_ROUNDS = 10
VALID: Mapping[str, Any] = {
    "name": "x",
    "model": "x",
    "dataset": "trec",
    "patience": 1,
    "data_sets": {"a": {"dataset": "trec"}, "b": {"dataset": "trec"}},
}
VALID_STAGE: Mapping[str, Any] = {"task": "finetune", "epochs": 1}


def check(tree: Tree) -> tuple[Config | None, list[Fault]]:
    """The configuration, or every error line of it."""
    root = _with_tasks(tree.root)
    config, errors = _validate(root)
    if config is not None:
        faults = list(_problem_faults(tree, config, set()))
        return (None if faults else config), faults
    return None, _all_faults(tree, root, errors)


def _all_faults(tree: Tree, root: dict[str, Any], errors: Mapping[KeyPath, str]) -> list[Fault]:
    """The error lines of a faulty configuration: its errors, and what is wrong once those are replaced."""
    from configs.unknown_keys import meant_key  # here and below: only a faulty file pays for the wording

    faults = _error_faults(tree, errors, root)
    unknown = [path for path, kind in errors.items() if kind == "extra_forbidden"]
    # A misspelt key counts as given, so nobody is told that it is missing.
    replaced = {*errors, *((*path[:-1], meant_key(path, root) or path[-1]) for path in unknown)}
    guessed = [path[:2] for path in errors if path[0] == "stages" and path[-1] == "task"]
    for _ in range(MAX_ROUNDS):
        for path in errors:
            _replace(root, path)
        config, errors = _validate(root)
        if config is not None:
            return faults + list(_problem_faults(tree, config, replaced))
        late = {path: kind for path, kind in errors.items() if path[:2] in guessed and kind != "extra_forbidden"}
        faults += _error_faults(tree, late, root)
        replaced |= set(errors)
    return faults


def _with_tasks(root: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which stages named after a task have that task."""
    copied = copy.deepcopy(dict(root))
    stages = copied.get("stages")
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        if isinstance(stage, dict) and stage.get("task") is None and task_of(name, stage) is not None:
            stage["task"] = task_of(name, stage)
    return copied


def _validate(root: Mapping[str, Any]) -> tuple[Config | None, dict[KeyPath, str]]:
    """The configuration without its `problems()`, or pydantic's kind of error for each faulty path."""
    try:
        return Config.model_validate(root, context={COLLECT_PROBLEMS: True}), {}
    except ValidationError as error:
        found: dict[KeyPath, str] = {}
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            path, kind = _key_path(item["loc"], item["type"], root)
            found.setdefault(path, kind)
        return None, found


def _key_path(loc: KeyPath, kind: str, root: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """pydantic's location without the tags of unions: errors of several union members fall together on one
    key."""
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return (*loc, "task"), "missing" if kind == "union_tag_not_found" else kind
    if loc[-1] == "[key]":
        loc, kind = loc[:-1], "key"
    path: KeyPath = ()
    rest = list(loc)
    while rest:
        path = (*path, rest.pop(0))
        if len(path) == 2 and path[0] == "stages" and rest:
            rest.pop(0)  # the stage's task: the tag of its union
        if _is_union(annotation_at(path, root)):
            break
    return path, kind


def _is_union(annotation: Any) -> bool:
    """Whether pydantic adds the tag of a union member to the location of errors of this value."""
    return sum(kind.type is not type(None) for kind in kinds(annotation)) > 1


def _replace(root: dict[str, Any], path: KeyPath) -> None:
    """Takes a faulty value out, or puts a valid one where one is required."""
    first_index = next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))
    path = path[:first_index]
    parent, key = value_at(root, path[:-1]), str(path[-1])
    if not isinstance(parent, dict):
        return
    if path == ("data",):
        parent[key] = {"dataset": VALID["dataset"]}
    elif path == ("stages",):
        parent[key] = {"finetune": dict(VALID_STAGE)}
    elif len(path) == 2 and path[0] == "stages" and not isinstance(parent.get(key), dict):
        parent[key] = dict(VALID_STAGE)
    elif len(path) == 3 and path[0] == "stages" and key == "task":
        parent[key] = _guessed_task(parent)
    elif key in VALID and (len(path) == 1 or key in ("dataset", "patience", "data_sets")):
        parent[key] = copy.deepcopy(VALID[key])
    else:
        parent.pop(key, None)


def _guessed_task(stage: Mapping[str, Any]) -> str:
    from configs.names import nearest

    only_pretrain = set(PretrainStage.model_fields) - set(FinetuneStage.model_fields)
    guess = nearest(str(stage.get("task")), TASKS)
    if guess or {"data_sets", "mixing"} & set(stage):
        return guess or "multitask"
    return "pretrain" if only_pretrain & set(stage) else "finetune"


def _error_faults(tree: Tree, errors: Mapping[KeyPath, str], root: Mapping[str, Any]) -> list[Fault]:
    from configs.messages import explain

    return [fault_at(tree, path, explain(tree, path, kind, root)) for path, kind in errors.items()]


def _problem_faults(tree: Tree, config: Config, replaced: set[KeyPath]) -> Iterator[Fault]:
    for path, problem in _problems(config, ()):
        keys = [(*path, *key.split(".")) for key in problem.keys]
        if any(_overlap(key, other) for key in keys for other in replaced):
            continue
        written = [key for key in keys if tree.has(key)] or keys[:1]
        newest = max((tree.source(key) for key in written), key=lambda source: source.line)
        blamed = tree.source(written[0])
        source = newest if newest.is_override else blamed
        yield fault_at(tree, keys[0], tree.in_written_names(problem.message, keys), source)


def _problems(section: Strict, path: KeyPath) -> Iterator[tuple[KeyPath, Problem]]:
    """The problems of a section and of all sections in it, with the path of the section that tells them."""
    for problem in section.problems():
        yield path, problem
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, Strict):
            yield from _problems(value, (*path, key))
        elif isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, Strict):
                    yield from _problems(item, (*path, key, name))
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                if isinstance(item, Strict):
                    yield from _problems(item, (*path, key, number))


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]
