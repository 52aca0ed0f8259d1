"""The resolved configuration as YAML text: every value that a run has, each with a comment saying where it
came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from configs.layers import DEFAULT, dotted
from configs.schema import Config
from configs.yaml_nodes import KeyPath

INDENT = "  "


@dataclass(frozen=True)
class Resolved:
    """A valid configuration, and for every leaf of it (dotted key) where its value came from."""

    config: Config
    provenance: Mapping[str, str]


def dump_resolved(resolved: Resolved) -> str:
    """YAML text that load_resolved reads back to an equal Config."""
    name = resolved.config.name
    header = f"# The resolved configuration of run {name}: every value and where it came from.\n"
    return header + "".join(_lines(resolved.config.model_dump(), (), resolved.provenance))


def _lines(values: Mapping[str, Any], path: KeyPath, provenance: Mapping[str, str]) -> Iterator[str]:
    indent = INDENT * len(path)
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:\n"
            yield from _lines(value, here, provenance)
        else:
            yield f"{indent}{key}: {_scalar(value)}  # {provenance.get(dotted(here), DEFAULT)}\n"


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_scalar(item)}' for key, item in value.items())}}}"
    quoted = yaml.safe_dump(value, default_style='"', width=float("inf"), allow_unicode=True)
    return str(quoted).rstrip("\n")
