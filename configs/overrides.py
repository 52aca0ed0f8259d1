"""`key.sub=value` arguments: what they name, how their text is read, and how they are laid over the YAML.

- `stages.finetune.lr=1e-4`, or shorter `finetune.lr=1e-4`: the first part is no top-level key but the name of
  a stage.
- `stages.*.batch=16` sets the key in every stage; `stages.pretrain=null` removes a stage.
- Text fields take the text as it is (`data.path=123` is the text "123"); everything else is read as YAML
  (`layers=[1,2]`).
- `epochs` and `max_steps` replace each other: the one that is given here ends the one that the YAML gives.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from configs.fields import accepts, annotation_at, keys_of, kinds, section_of, value_at
from configs.layers import UNPRINTABLE, Fault, Source, Tree, dotted, printable
from configs.schema import Config
from configs.yaml_nodes import KeyPath, YamlError, parse

ENVIRONMENT_VARIABLE = "BERT4DOC_OVERRIDES"
COMMAND_LINE = "command line"
ENVIRONMENT = "environment"
LINE_OF = {ENVIRONMENT: 10**9, COMMAND_LINE: 10**9 + 1}
ONE_OF_TWO = {"epochs": "max_steps", "max_steps": "epochs"}


class OverrideError(Exception):
    """An override that cannot be laid over the YAML; the message has no place yet."""


@dataclass(frozen=True)
class Override:
    """One `key=value` argument and the layer it belongs to."""

    argument: str
    layer: str

    @property
    def source(self) -> Source:
        text = self.argument.partition("=")[2]
        return Source(self.layer, f"{self.layer}: {self.argument}", LINE_OF[self.layer], text, is_override=True)


def from_environment() -> tuple[list[Override], list[Fault]]:
    """The overrides of BERT4DOC_OVERRIDES, which is split like a shell would."""
    text = os.environ.get(ENVIRONMENT_VARIABLE, "")
    try:
        return [Override(argument, ENVIRONMENT) for argument in shlex.split(text)], []
    except ValueError as error:
        reason = f"{str(error).lower()}; it is written key=value key2='a value'"
        message = f"{ENVIRONMENT}: {ENVIRONMENT_VARIABLE}={text}: {reason}"
        return [], [Fault(LINE_OF[ENVIRONMENT], printable(message))]


def apply(tree: Tree, overrides: Sequence[Override]) -> list[Fault]:
    """Lays overrides over the tree, the later ones winning; returns an error line for each that cannot be."""
    faults = []
    for override in overrides:
        try:
            _apply_one(tree, override)
        except OverrideError as error:
            source = override.source
            faults.append(Fault(source.line, printable(f"{source.place}: {error}")))
    return faults


def _apply_one(tree: Tree, override: Override) -> None:
    key, equals, text = override.argument.partition("=")
    if not equals or not key:
        raise OverrideError("an override is written key=value, such as stages.finetune.lr=1e-4")
    if not text:
        raise OverrideError(f"no value; {key}=null sets it to none")
    if UNPRINTABLE.search(override.argument):
        raise OverrideError("holds a control character, or bytes that are not UTF-8")
    for path in _paths(tree, key):
        value = _value(text, path, tree)
        if len(path) == 2 and path[0] == "stages" and value is None:
            _check_stage(tree, str(path[1]))
            tree.remove(path)
            continue
        tree.set(path, value, override.source)
        if len(path) == 3 and path[0] == "stages" and value is not None:
            _end_other(tree, path, override)


def _end_other(tree: Tree, path: KeyPath, override: Override) -> None:
    """Takes out epochs where max_steps is set, and the other way round, if it comes from a weaker layer."""
    other = (*path[:2], ONE_OF_TWO.get(str(path[2]), ""))
    if tree.has(other) and tree.source(other).provenance != override.layer:
        tree.remove(other)


def _paths(tree: Tree, key: str) -> list[KeyPath]:
    """The paths that a dotted key names: one, or one per stage for `stages.*`."""
    parts = tuple(key.split("."))
    if "" in parts:
        raise OverrideError("an empty part in the key; it is written like stages.finetune.lr")
    names = tree.stage_names()
    if parts[0] not in keys_of(Config) and parts[0] in (*names, "*"):
        parts = ("stages", *parts)
    paths: list[KeyPath] = [parts]
    if parts[:2] == ("stages", "*"):
        if not names:
            raise OverrideError("there is no stage to set it in")
        paths = [("stages", name, *parts[2:]) for name in names]
    for path in paths:
        _check_way(tree, path)
    return paths


def _check_way(tree: Tree, path: KeyPath) -> None:
    """Refuses a path through a stage that is not there, or through a plain value."""
    for depth in range(1, len(path)):
        annotation = annotation_at(path[:depth], tree.root)
        if depth == 2 and path[0] == "stages":
            _check_stage(tree, str(path[1]))
        is_value = annotation is not None and section_of(annotation) is None and not _is_mapping(annotation)
        if is_value or not isinstance(value_at(tree.root, path[:depth]), (dict, type(None))):
            raise OverrideError(f"{dotted(path[:depth])} is a single value, it has no key '{path[depth]}'")


def _check_stage(tree: Tree, name: str) -> None:
    names = tree.stage_names()
    if name not in names:
        raise OverrideError(f"there is no stage '{name}'; stages: {', '.join(names) or 'none'}{_guess(name, names)}")


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(kind.type) is dict for kind in kinds(annotation))


def _guess(word: str, words: Sequence[str]) -> str:
    from configs.names import nearest  # only a faulty argument pays for difflib

    close = nearest(word, words)
    return f"; did you mean '{close}'?" if close else ""


def _value(text: str, path: KeyPath, tree: Tree) -> Any:
    annotation = annotation_at(path, tree.root)
    if annotation is not None and accepts(annotation, str):
        return _text_value(text, annotation)
    try:
        document = parse(text)
    except YamlError as error:
        raise OverrideError(str(error.message)) from error
    if document.faults:
        raise OverrideError(document.faults[0].message)
    return document.value


def _text_value(text: str, annotation: Any) -> Any:
    """Text as it is, except null where that is allowed, a number where that is allowed, and quotes around all
    of it."""
    if text == "null" and accepts(annotation, None):
        return None
    if accepts(annotation, int) and re.fullmatch("0|[1-9][0-9]{0,17}", text):
        return int(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text
