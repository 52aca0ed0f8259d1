"""Error messages in plain English: the value that stands there, what is allowed, and what was probably
meant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from configs.fields import accepts, annotation_at, choices, describe, value_at
from configs.layers import Tree
from configs.names import nearest
from configs.schema import TASKS, EnvName, StageName
from configs.unknown_keys import explain_unknown
from configs.yaml_nodes import KeyPath, YamlError, parse

MAX_SHOWN = 60
BOOLEAN_WORDS = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


def explain(tree: Tree, path: KeyPath, kind: str, root: Mapping[str, Any]) -> str:
    """What is wrong at a path.

    kind: pydantic's type of error, or `key` for a name that is not allowed; root: the values with the task of
    every stage.
    """
    if kind == "key":
        needed = describe(StageName if path[0] == "stages" else EnvName)
        return f"not allowed as a name; needed: {needed}"
    if kind == "extra_forbidden":
        return explain_unknown(path, root)
    if path[0] == "stages" and path[-1] == "task":
        return _task_message(tree, path)
    annotation = annotation_at(path, root)
    if kind == "missing":
        return f"missing; needed: {describe(annotation)}"
    return _bad_value(value_at(tree.root, path), annotation, _spelling(tree, path))


def _task_message(tree: Tree, path: KeyPath) -> str:
    value = value_at(tree.root, path)
    allowed = f"{', '.join(TASKS[:-1])} or {TASKS[-1]}"
    if value is None:
        return f"missing; a stage that is not named {allowed} needs task: {allowed}"
    return f"{_shown(value, None)}; allowed: {allowed}{_did_you_mean(str(value), TASKS)}"


def _spelling(tree: Tree, path: KeyPath) -> str | None:
    return tree.source(path).text if path in tree.sources else None


def _shown(value: Any, spelling: str | None) -> str:
    """A value as the user wrote it, cut to a line."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, (list, dict)):
        text = "a section" if isinstance(value, dict) else f"[{', '.join(_shown(item, None) for item in value)}]"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = spelling or str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _bad_value(value: Any, annotation: Any, spelling: str | None) -> str:
    words = choices(annotation)
    is_text_field = accepts(annotation, str)
    shown = _shown(value, spelling)
    hint = ""
    if value is None:
        shown = "empty (null)"
    elif isinstance(value, str):
        hint = _did_you_mean(value, words) or _text_hint(value, annotation)
        if not words and not is_text_field:
            shown += " is text"
        elif is_text_field:
            shown = "empty text" if not value else f"{shown} is not allowed"
            hint = "" if value.isprintable() else " without control characters"
    elif isinstance(value, float) and not math.isfinite(value):
        shown += " is not a finite number"
    elif isinstance(value, (bool, int, float)) and is_text_field:
        shown += " is not text"
        hint = f'; write "{spelling or value}" in quotes'
    elif isinstance(value, float) and value.is_integer() and accepts(annotation, int) and abs(value) < 1e18:
        hint = f"; write {int(value)}"
    return f"{shown}; allowed: {describe(annotation)}{hint}"


def _text_hint(value: str, annotation: Any) -> str:
    """What to write instead of a text that looks like a number or a boolean."""
    if accepts(annotation, bool):
        return f"; write {BOOLEAN_WORDS[value.lower()]}" if value.lower() in BOOLEAN_WORDS else ""
    if not (accepts(annotation, int) or accepts(annotation, float)):
        return ""
    if _is_number(value):
        return f"; write {value} without quotes"
    plain = value.replace("_", "").lstrip("0")
    return f"; write {plain}" if value[:1].isdecimal() and _is_number(plain) else ""


def _is_number(text: str) -> bool:
    try:
        return type(parse(text).value) in (int, float)
    except YamlError:
        return False


def _did_you_mean(word: str, words: list[str] | tuple[str, ...]) -> str:
    close = nearest(word, words)
    return f"; did you mean '{close}'?" if close else ""
