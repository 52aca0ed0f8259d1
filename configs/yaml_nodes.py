"""YAML read as plain values with the line of every key: a safe subset of YAML without PyYAML's traps.

Numbers follow JSON and scientific notation (`1e-4` is a number), only `true` and `false` are booleans,
`12:30`, `010` and `no` stay text, a key may stand once, and tags, merge keys, alias bombs and deep nesting
are refused. Nothing but str, int, float, bool, None, list and dict ever comes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_ALIASES = 100
MAX_NODES = 20_000
MAX_INTEGER = 2**63 - 1

KeyPath = tuple[str | int, ...]

NULL, BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))

# What PyYAML says -> what the user can do about it.
PLAIN_WORDS = (
    ("found character '\\t'", "a tab cannot indent or separate; use spaces"),
    (
        "mapping values are not allowed here",
        "a second ': ' on this line; put the value in quotes, or mend the indentation",
    ),
    (
        "could not find expected ':'",
        "a line without 'key: value', or a quote or bracket that is not closed above it",
    ),
    ("expected <block end>", "wrong indentation; keys of one section start in the same column"),
    ("expected ',' or", "a ',' or a closing bracket is missing"),
    ("found unexpected end of stream", "a quote is opened and never closed"),
    ("expected a single document", "a second document starts here ('---'); one file holds one configuration"),
    ("found undefined alias", "an alias (*name) without an anchor (&name) before it"),
    ("found duplicate anchor", "this anchor (&name) is defined twice"),
    ("cannot start any token", "this character cannot start a value; put the value in quotes"),
)


class YamlError(ConfigError):
    """The text is not acceptable YAML; `line` and `column` count from 1, 0 if the whole text is meant."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Mark:
    """Where a key or list item stands, and how its scalar value is spelled there."""

    line: int
    text: str | None = None


@dataclass(frozen=True)
class NodeFault:
    """A single key or value that cannot be used, while the rest of the file can still be read."""

    line: int
    path: KeyPath
    message: str


@dataclass
class Document:
    """The values of a YAML text, the mark of every key path in it, and the faults found on the way."""

    value: Any = None
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    faults: list[NodeFault] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    """Composes nodes only: counts depth and aliases, refuses tags. No value is ever constructed by PyYAML."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it as an instance variable
    _depth = 0
    _aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise YamlError(f"more than {MAX_ALIASES} aliases (*name)", mark.line + 1, mark.column + 1)
        elif getattr(event, "tag", None) is not None:
            raise YamlError(f"tags are not allowed: {event.tag}", mark.line + 1, mark.column + 1)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels", mark.line + 1, mark.column + 1)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.add_implicit_resolver(NULL, re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver(BOOL, re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver(INT, re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    FLOAT,
    re.compile(r"^[-+]?(?:(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.inf)$|^\.nan$"),
    list("-+.0123456789"),
)


def read_file(path: Path) -> Document:
    """Reads a YAML file. Raises YamlError (with line 0 when the file as a whole cannot be read) on anything
    but a mapping."""
    document = parse(decode(_read_bytes(path)))
    if document.value is None:
        raise YamlError("the file is empty; a configuration is a mapping with name, model, data and stages")
    if not isinstance(document.value, dict):
        found = "a list" if isinstance(document.value, list) else f"a single value ({str(document.value)[:40]!r})"
        raise YamlError(f"the file holds {found}; a configuration is a mapping with name, model, data and stages", 1)
    return document


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise YamlError("is a directory; name a YAML file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise YamlError(f"is larger than {MAX_BYTES:,} bytes; this is no configuration")
    return data


def decode(data: bytes) -> str:
    """UTF-8 with or without a byte order mark; anything else raises YamlError saying what it looks like."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise YamlError("is UTF-16; save it as UTF-8")
    if b"\0" in data:
        raise YamlError("is a binary file (it holds NUL bytes); name a YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError(f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8", line) from error


def parse(text: str) -> Document:
    """Parses a YAML text of at most one document. Raises YamlError on the first error of syntax, or a
    limit."""
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad:
        before = text[: bad.start()]
        line, column = before.count("\n") + 1, bad.start() - before.rfind("\n")
        raise YamlError(f"control character U+{ord(bad.group()):04X}; remove it", line, column)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _reworded(error) from error
    finally:
        loader.dispose()
    document = Document()
    if node is not None:
        document.value = _Builder(document).build(node, (), node.start_mark.line + 1)
    return document


def _reworded(error: yaml.MarkedYAMLError) -> YamlError:
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or error.context)
    for theirs, ours in PLAIN_WORDS:
        if theirs in f"{error.context} {error.problem}":
            problem = ours
            break
    if mark is None:
        return YamlError(f"not valid YAML: {problem}", 1, 1)
    return YamlError(f"not valid YAML: {problem}", mark.line + 1, mark.column + 1)


class _Builder:
    """Turns nodes into plain values and records marks and faults; shared (aliased) nodes are counted at each
    use."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.num_nodes = 0

    def build(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES:,} values after expanding aliases", line, 1)
        if len(path) > MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels", line, 1)
        self.document.marks[path] = Mark(line, node.value if isinstance(node, yaml.ScalarNode) else None)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        items = enumerate(node.value)
        return [self.build(item, (*path, i), item.start_mark.line + 1) for i, item in items]

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, line: int) -> Any:
        if node.tag == NULL:
            return None
        if node.tag == BOOL:
            return node.value == "true"
        if node.tag == INT:
            if len(node.value) > 20 or abs(int(node.value)) > MAX_INTEGER:
                self.document.faults.append(NodeFault(line, path, f"a number of {len(node.value)} digits is too large"))
                return 1
            return int(node.value)
        if node.tag == FLOAT:
            return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
        return node.value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.document.faults.append(NodeFault(line, path, "a key must be a word, not a list or a mapping"))
                continue
            key = key_node.value
            if key == "<<" and not key_node.style:
                message = "merge keys (<<) are not supported; write the values out"
                self.document.faults.append(NodeFault(line, path, message))
            elif key in first_line:
                message = f"this key stands twice, on lines {first_line[key]} and {line}; keep one"
                self.document.faults.append(NodeFault(line, (*path, key), message))
            else:
                first_line[key] = line
                result[key] = self.build(value_node, (*path, key), line)
        return result
