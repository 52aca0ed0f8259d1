"""`sweep:` of a stage: one stage per combination of values, made before the configuration is checked.

    finetune: {epochs: 4, sweep: {init: [pretrain@0, pretrain@20000], seed: [1, 2, 3]}}

stands for six stages, `finetune-init-pretrain-0-seed1` and so on. A member is named STAGE, then for each key `-`, the
key's last part and the value, another `-` before a value that begins with a letter; signs that a stage's name cannot have become
`-` (`lr3e-5`, `layer_decay0-95`). All members share a `group`, named after the stage, and are summed up together. Where
`seed` or `data.fold` are swept beside other keys, each setting of those others is a group of its own, as its members
are one experiment repeated. A member whose `init` names another swept stage starts from that one's member with the
same choices.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.fields import task_of, value_at
from configs.inits import MODEL
from configs.layers import Fault, Source, Tree, fault_at
from configs.yaml_nodes import KeyPath

SWEEP = "sweep"
REPETITIONS = ("seed", "data.fold")
"""Keys that repeat an experiment instead of changing it."""
NOT_SWEPT = (SWEEP, "group", "swept_from", "task")
MAX_MEMBERS = 200
MAX_NAME = 64
MARK = 8
"""Hex digits that tell groups apart whose names would be the same."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Choice:
    """One value of one swept key."""

    key: str
    value: Any
    written: KeyPath
    """Where the value stands in the configuration."""

    @property
    def label(self) -> str:
        """The choice as a part of a stage's name: `lr3e-5`, `init-pretrain-20000`."""
        key, text = self.key.rpartition(".")[2], _slug(self.value)
        return f"{key}-{text}" if text[:1].isalpha() else f"{key}{text}"


Members = Mapping[str, tuple[Choice, ...]]


def expand(tree: Tree) -> list[Fault]:
    """Replaces every stage that has a `sweep` by its members, in place; returns the error lines of those that cannot be."""
    stages = tree.root.get("stages")
    if not isinstance(stages, dict):
        return []
    faults: list[Fault] = []
    expanded: dict[str, Members] = {}
    for name, stage in list(stages.items()):
        if isinstance(stage, dict) and SWEEP in stage:
            swept = dict(_flatten(stage.pop(SWEEP), ("stages", name, SWEEP), ""))
            found = _faults(tree, name, swept)
            faults += found
            if not found:
                choices = {key: _choices(key, values, path) for key, (values, path) in swept.items()}
                expanded[name] = _replace(tree, name, choices)
    for name in expanded:
        _pair(tree, name, expanded)
    return faults


def _pair(tree: Tree, base: str, expanded: Mapping[str, Members]) -> None:
    """A member that starts from another sweep takes that sweep's member with the same choices: seed 1 goes on with seed 1."""
    nearest = _nearest_start(tree, base, expanded)
    for name, choices in expanded[base].items():
        place = ("stages", name, "init")
        written = value_at(tree.root, place)
        start = nearest if written is None else str(written)
        own = [(choice.key, choice.value) for choice in choices]
        for other, theirs in expanded.get(start, {}).items():
            if all((choice.key, choice.value) in own for choice in theirs):
                tree.set(place, other, tree.source(place))
        if written is None and start not in expanded:  # its nearest stage could be a member of its own sweep
            tree.set(place, start, tree.source(place))


def _nearest_start(tree: Tree, base: str, expanded: Mapping[str, Members]) -> str:
    """What a sweep without `init` starts from: the nearest stage before it that it can, by the name of its sweep if it has one."""
    stages = tree.root["stages"]
    member = next(iter(expanded[base]))
    sources = ("pretrain", "multitask") if task_of(base, stages[member]) == "finetune" else ("pretrain",)
    earlier = [name for name in list(stages)[: list(stages).index(member)] if task_of(name, stages[name]) in sources]
    if not earlier:
        return MODEL
    return next((other for other, members in expanded.items() if earlier[-1] in members), earlier[-1])


CLASSIFYING = ("finetune", "multitask")


def classifying(tree: Tree, tasks: Sequence[str] = CLASSIFYING) -> list[str]:
    """The stages that train classifiers, as far as they are written."""
    return [name for name in tree.stage_names() if task_of(name, value_at(tree.root, ("stages", name))) in tasks]


def sweep_all(tree: Tree, key: str, values: Sequence[int], source: Source, tasks: Sequence[str] = CLASSIFYING) -> None:
    """Adds a key to the sweep of every stage that trains a classifier (`--seeds`, `--folds`)."""
    for name in classifying(tree, tasks):
        tree.set(("stages", name, SWEEP, key), list(values), source)


def _flatten(value: Any, path: KeyPath, key: str) -> Iterator[tuple[str, tuple[Any, KeyPath]]]:
    """Dotted keys with their values and where they stand; nested sections are another way to write a dotted key."""
    if not isinstance(value, dict):
        yield key, (value, path)
        return
    for part, item in value.items():
        yield from _flatten(item, (*path, part), f"{key}.{part}" if key else part)


def _choices(key: str, values: Sequence[Any], path: KeyPath) -> list[Choice]:
    return [Choice(key, value, (*path, index)) for index, value in enumerate(values)]


def _faults(tree: Tree, name: str, swept: Mapping[str, tuple[Any, KeyPath]]) -> list[Fault]:
    path: KeyPath = ("stages", name, SWEEP)
    if not swept or "" in swept:
        return [fault_at(tree, path, "needs keys of the stage with lists of values, such as {seed: [1, 2, 3]}")]
    faults = []
    for key, (values, place) in swept.items():
        if key in NOT_SWEPT or not _KEY.fullmatch(key):
            faults.append(
                fault_at(tree, place, "cannot be swept; name a key of the stage, such as lr or truncation.head")
            )
        elif not isinstance(values, list) or not values:
            faults.append(fault_at(tree, place, "needs a list of values, such as [1, 2, 3]"))
        elif any(value in values[:index] for index, value in enumerate(values)):
            faults.append(fault_at(tree, place, "names a value twice"))
    count = math.prod(len(values) for values, _ in swept.values()) if not faults else 0
    if count > MAX_MEMBERS:
        faults.append(fault_at(tree, path, f"stands for {count} stages; at most {MAX_MEMBERS} are allowed"))
    return faults


def _replace(tree: Tree, base: str, swept: Mapping[str, Sequence[Choice]]) -> Members:
    """Puts the members where the stage stood."""
    stages, path = tree.root["stages"], ("stages", base)
    if any(key.startswith("data.") for key in swept) and stages[base].get("data") is None and "data" in tree.root:
        tree.copy(("data",), (*path, "data"))
    members: dict[str, tuple[Choice, ...]] = {}
    for choices in _combinations(swept):
        members[_unique(base, choices, {*stages, *members} - {base})] = choices
    ordered: dict[str, Any] = {}
    for name, stage in stages.items():
        ordered |= {member: copy.deepcopy(stage) for member in members} if name == base else {name: stage}
    tree.root["stages"] = ordered
    groups = _groups(base, list(members.values()))
    for (name, choices), group in zip(members.items(), groups, strict=True):
        _make_member(tree, path, ("stages", name), choices, group)
    return members


def _groups(base: str, members: Sequence[Sequence[Choice]]) -> list[str]:
    """The group of each member: the members of one are repetitions, or the whole sweep where nothing is repeated."""
    repeating = any(choice.key in REPETITIONS for choice in members[0])
    settings = [tuple(choice for choice in choices if choice.key not in REPETITIONS) for choices in members]
    if not repeating:
        return [base] * len(members)
    marks = [_mark(each) for each in settings]
    names = [_joined(base, each) for each in settings]
    marks_of = {name: {mark for other, mark in zip(names, marks, strict=True) if other == name} for name in names}
    return [
        f"{name[: MAX_NAME - MARK - 1]}-{mark}" if len(marks_of[name]) > 1 or _is_cut(base, each) else name
        for name, mark, each in zip(names, marks, settings, strict=True)
    ]


def _mark(choices: Sequence[Choice]) -> str:
    """Tells settings apart whose names are the same, whatever else is swept."""
    text = json.dumps([(choice.key, choice.value) for choice in choices], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:MARK]


def _make_member(tree: Tree, base: KeyPath, member: KeyPath, choices: Sequence[Choice], group: str) -> None:
    tree.copy_sources(base, member)
    tree.shown[member] = base
    task = task_of(str(base[1]), value_at(tree.root, member))
    if task is not None:  # a stage that is named after its task loses that name
        tree.set((*member, "task"), task, tree.source((*base, "task")))
    tree.set((*member, "swept_from"), str(base[1]), tree.source((*base, SWEEP)))
    if value_at(tree.root, (*member, "group")) is None:
        tree.set((*member, "group"), group, tree.source((*base, SWEEP)))
    for choice in choices:
        place = (*member, *choice.key.split("."))
        # a plain value where a section should be is an error by itself
        if all(isinstance(value_at(tree.root, place[:depth]), dict | None) for depth in range(2, len(place))):
            tree.set(place, copy.deepcopy(choice.value), tree.source(choice.written))
            tree.shown[place] = choice.written


def _combinations(swept: Mapping[str, Sequence[Choice]]) -> Iterator[tuple[Choice, ...]]:
    """The product over all keys; repetitions vary fastest."""
    return itertools.product(*(swept[key] for key in sorted(swept, key=lambda key: key in REPETITIONS)))


def _unique(base: str, choices: Sequence[Choice], taken: set[str]) -> str:
    name = _joined(base, choices)
    if name not in taken:
        return name
    numbered = (f"{name[: MAX_NAME - 4]}-{number}" for number in itertools.count(2))
    return next(each for each in numbered if each not in taken)


def _joined(base: str, choices: Sequence[Choice]) -> str:
    return _whole_name(base, choices)[:MAX_NAME].rstrip("-")


def _is_cut(base: str, choices: Sequence[Choice]) -> bool:
    return len(_whole_name(base, choices)) > MAX_NAME


def _whole_name(base: str, choices: Sequence[Choice]) -> str:
    return "-".join([base, *(choice.label for choice in choices)])


def _slug(value: Any) -> str:
    """A value with the signs that a stage's name may have: `3e-5`, `0-95`, `pretrain-20000`."""
    if isinstance(value, dict | list):
        return "-".join(map(_slug, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return _number(value).replace(".", "-")
    word = {None: "none", True: "true", False: "false"}[value] if isinstance(value, bool | None) else str(value)
    return re.sub(r"[^A-Za-z0-9_]+", "-", word).strip("-")


def _number(value: float) -> str:
    """As people write it: 0.95, 3e-5, 2e-4."""
    if value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:.12g}"
    digits, exponent = f"{value:.11e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
