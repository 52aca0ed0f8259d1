"""Looks into the schema by key path: which annotation stands there, which keys a section has, what a value
may be, in plain English."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from configs.schema import (
    DURATION_PATTERN,
    TASKS,
    Config,
    FinetuneStage,
    MultitaskStage,
    PretrainStage,
    Stage,
    StageBase,
    Strict,
)

STAGE_CLASSES: Mapping[str, type[Strict]] = {
    "pretrain": PretrainStage,
    "finetune": FinetuneStage,
    "multitask": MultitaskStage,
}
NUMBERS = {int: "a whole number", float: "a number"}
RANGE_WORDS = {"ge": "of at least", "gt": "above", "le": "up to", "lt": "below"}


@dataclass(frozen=True)
class Kind:
    """One allowed kind of value: its type (or Literal), and the bounds that the schema sets on it."""

    type: Any
    bounds: Mapping[str, Any]


def task_of(name: str, stage: object) -> object:
    """The task of a stage as it is written, or its own name if that is a task; None if neither says."""
    written = stage.get("task") if isinstance(stage, Mapping) else None
    return written if written is not None else (name if name in TASKS else None)


def annotation_at(path: Sequence[str | int], tree: object) -> Any:
    """The schema's annotation of the value at `path`, None where the schema has no such key.

    tree: the configuration as it is written; it tells which task a stage has.
    """
    here: Any = Config
    for depth, part in enumerate(path):
        here = _step(here, part, path[:depth], tree)
        if here is None:
            return None
    return here


def _step(annotation: Any, part: str | int, parent: Sequence[str | int], tree: object) -> Any:
    section = section_of(annotation)
    if section is not None:
        info = section.model_fields.get(str(part))
        return None if info is None else _annotation_of(info)
    if is_stages(annotation):
        task = task_of(str(part), value_at(tree, (*parent, part)))
        return STAGE_CLASSES.get(str(task), StageBase)
    for kind in kinds(annotation):
        if get_origin(kind.type) in (dict, tuple):
            return get_args(kind.type)[1 if get_origin(kind.type) is dict else 0]
    return None


def value_at(tree: object, path: Sequence[str | int]) -> Any:
    """The value at a path of nested mappings and lists; None where there is none."""
    here: Any = tree
    for part in path:
        if isinstance(here, Mapping):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            return None
    return here


def _annotation_of(info: FieldInfo) -> Any:
    annotation: Any = info.annotation
    for item in info.metadata:
        annotation = Annotated[annotation, item]
    return annotation


def section_of(annotation: Any) -> type[Strict] | None:
    """The section class behind an annotation (`DataConfig | None` -> DataConfig), None for plain values."""
    for kind in kinds(annotation):
        if get_origin(kind.type) is None and isinstance(kind.type, type) and issubclass(kind.type, Strict):
            return kind.type
    return None


def is_stages(annotation: Any) -> bool:
    """Whether the annotation is the mapping of stages."""
    return get_origin(annotation) is dict and get_args(annotation)[1] == Stage


def keys_of(section: type[Strict]) -> list[str]:
    """The keys of a section, in the order of the schema."""
    return list(section.model_fields)


def kinds(annotation: Any, bounds: Mapping[str, Any] | None = None) -> Iterator[Kind]:
    """Takes unions and Annotated apart into the single kinds of value that are allowed."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        merged = dict(bounds or {})
        for item in metadata:
            merged.update(_bounds_of(item))
        yield from kinds(inner, merged)
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from kinds(member, bounds)
    else:
        yield Kind(annotation, bounds or {})


def _bounds_of(item: Any) -> dict[str, Any]:
    names = ("ge", "gt", "le", "lt", "min_length", "pattern")
    if isinstance(item, FieldInfo):
        merged: dict[str, Any] = {}
        for inner in item.metadata:
            merged.update(_bounds_of(inner))
        return merged
    return {name: getattr(item, name) for name in names if getattr(item, name, None) is not None}


def choices(annotation: Any) -> list[str]:
    """The words that a Literal in the annotation allows."""
    return [word for kind in kinds(annotation) if get_origin(kind.type) is Literal for word in get_args(kind.type)]


def accepts(annotation: Any, type_: Any) -> bool:
    """Whether values of a type (str, int, None ...) are among the allowed kinds."""
    return any(kind.type is type_ or (type_ is None and kind.type is type(None)) for kind in kinds(annotation))


def describe(annotation: Any) -> str:
    """What a value may be, as the end of a sentence: "a whole number of at least 1, or null"."""
    parts = [_describe_kind(kind) for kind in kinds(annotation) if kind.type is not type(None)]
    if accepts(annotation, None):
        parts.append("null")
    return ", or ".join(parts)


def _describe_kind(kind: Kind) -> str:
    origin = get_origin(kind.type)
    if origin is Literal:
        words = get_args(kind.type)
        return str(words[0]) if len(words) == 1 else f"one of {', '.join(words)}"
    if origin is tuple:
        item = get_args(kind.type)[0]
        if section_of(item) is not None:
            return "a list of sections of 'key: value' lines"
        one = " and ".join(choices(item)) or _describe_kind(next(kinds(item)))
        one = one.replace("a whole number", "whole numbers").replace("a number", "numbers")
        return f"a list of {one}"
    if kind.type in NUMBERS:
        return f"{NUMBERS[kind.type]}{_range(kind.bounds)}"
    if kind.type is str:
        return _describe_text(kind.bounds)
    return "true or false" if kind.type is bool else "a section of 'key: value' lines"


def _describe_text(bounds: Mapping[str, Any]) -> str:
    pattern = str(bounds.get("pattern", ""))
    if pattern.startswith("^[A-Za-z0-9]"):
        signs = "'.', '_' and '-'" if "." in pattern else "'_' and '-'"
        return f"a name of 1 to 64 letters, digits, {signs} that begins with a letter or digit"
    if pattern == DURATION_PATTERN:
        return "a duration such as 90s, 45m, 2h or 1d12h"
    if pattern.startswith("^[A-Za-z_]"):
        return "a name of letters, digits and '_' that begins with no digit"
    return "text"


def _range(bounds: Mapping[str, Any]) -> str:
    limits = [f"{words} {bounds[name]:.12g}" for name, words in RANGE_WORDS.items() if name in bounds]
    return " " + " and ".join(limits) if limits else ""
