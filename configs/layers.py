"""A configuration before it is checked: plain values from YAML, environment and command line, each with where
it came from."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from configs.fields import value_at
from configs.yaml_nodes import Document, KeyPath

DEFAULT = "default"
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line separators, and the surrogates that stand for bytes which are not UTF-8."""


@dataclass(frozen=True)
class Source:
    """Where a value came from, as the resolved configuration says it and as an error begins; `line` orders
    the errors."""

    provenance: str
    place: str
    line: int
    text: str | None = None
    is_override: bool = False


@dataclass(frozen=True, order=True)
class Fault:
    """One finished error line. Faults of the file come first, by line, then those of the environment and
    command line."""

    line: int
    text: str


@dataclass
class Tree:
    """Nested plain values and the source of every path that was written somewhere."""

    root: dict[str, Any]
    sources: dict[KeyPath, Source] = field(default_factory=dict)
    shown: dict[KeyPath, KeyPath] = field(default_factory=dict)
    """What errors call a path that a sweep has made: the path that the user wrote."""

    @classmethod
    def from_document(cls, document: Document, file: str) -> Tree:
        """The YAML layer; `file` is how the file is called in messages."""
        sources = {
            path: Source(f"{file}:{mark.line}", f"{file}:{mark.line}", mark.line, mark.text)
            for path, mark in document.marks.items()
        }
        return cls(document.value, sources)

    def source(self, path: KeyPath) -> Source:
        """The source of a path, or of the nearest section around it that is written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.sources:
                return self.sources[path[:length]]
        return Source(DEFAULT, DEFAULT, 0)

    def provenance(self, path: KeyPath) -> str:
        """Where the value of a leaf came from; `default` if it is written nowhere."""
        return self.source(path).provenance if self.has(path) else DEFAULT

    def has(self, path: KeyPath) -> bool:
        """Whether the path is written, even as null."""
        parent = value_at(self.root, path[:-1]) if path else None
        return not path or (isinstance(parent, Mapping) and path[-1] in parent)

    def set(self, path: KeyPath, value: Any, source: Source) -> None:
        """Sets a value, making the sections on the way; they must not be plain values."""
        here = self.root
        for depth, part in enumerate(path[:-1], start=1):
            if here.get(str(part)) is None:
                here[str(part)] = {}
                self.sources[path[:depth]] = source
            here = here[str(part)]
        self.forget(path)
        here[str(path[-1])] = value
        self.sources[path] = source

    def remove(self, path: KeyPath) -> None:
        """Removes a key and what is known of it."""
        self.forget(path)
        value_at(self.root, path[:-1]).pop(path[-1], None)

    def forget(self, path: KeyPath) -> None:
        """Drops the sources of a path and of everything below it."""
        for known in [known for known in self.sources if known[: len(path)] == path]:
            del self.sources[known]

    def copy(self, path: KeyPath, target: KeyPath) -> None:
        """Copies a value and what is known of it to another path, whose parent is there."""
        value_at(self.root, target[:-1])[target[-1]] = copy.deepcopy(value_at(self.root, path))
        self.copy_sources(path, target)

    def copy_sources(self, path: KeyPath, target: KeyPath) -> None:
        """Makes the sources of a path, and of everything below it, those of another path as well."""
        below = {known: source for known, source in self.sources.items() if known[: len(path)] == path}
        self.sources |= {(*target, *known[len(path) :]): source for known, source in below.items()}

    def as_written(self, path: KeyPath) -> KeyPath:
        """The path that the user wrote for this one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.shown:
                return (*self.shown[path[:length]], *path[length:])
        return path

    def in_written_names(self, message: str, paths: Iterable[KeyPath]) -> str:
        """A message with the stages of these paths named as the user wrote them: all members of a sweep then give the same."""
        for stage in {path[:2] for path in paths} & set(self.shown):
            message = re.sub(rf"(?<![\w-]){re.escape(str(stage[1]))}(?![\w-])", str(self.shown[stage][1]), message)
        return message

    def stage_names(self) -> list[str]:
        """The names of the stages as far as they are written."""
        stages = self.root.get("stages")
        return list(stages) if isinstance(stages, dict) else []


def fault_at(tree: Tree, path: KeyPath, message: str, source: Source | None = None, line: int = 0) -> Fault:
    """An error line: `place: dotted.key: message`; at the path's own source unless another one, or a line, is
    given."""
    source = source or tree.source(path)
    place = source.place
    if line and line != source.line:
        place, source = f"{place.rpartition(':')[0]}:{line}", replace(source, line=line)
    key = f"{dotted(tree.as_written(path))}: " if path else ""
    return Fault(source.line, printable(f"{place}: {key}{message}"))


def printable(text: str) -> str:
    """The text without characters that could move the cursor or fail to encode."""
    return UNPRINTABLE.sub("?", text)


def dotted(path: KeyPath) -> str:
    """`("stages", "pretrain", "splits", 0)` -> `stages.pretrain.splits[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The leaves of nested mappings in order; lists, empty mappings and scalars are leaves."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value
