"""Loads a configuration: default < YAML < environment < command line, strictly checked, every error in one
report.

A relative path in a configuration (`data.path`, `model`) is kept as it is given; it is meant relative to the
current directory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from configs.check import check
from configs.errors import ConfigError
from configs.fields import value_at
from configs.layers import Fault, Source, Tree, dotted, fault_at, leaves, printable
from configs.overrides import COMMAND_LINE, LINE_OF, Override, apply, from_environment
from configs.resolved import Resolved, dump_resolved
from configs.schema import Config
from configs.sweeps import classifying, expand, sweep_all
from configs.yaml_nodes import Document, YamlError, read_file

__all__ = ["Resolved", "dump_resolved", "load_config", "load_resolved"]

SHIPPED = Path(__file__).parent


def load_config(
    path: Path,
    overrides: Sequence[str] = (),
    name: str | None = None,
    seeds: Sequence[int] = (),
    folds: int | None = None,
) -> Resolved:
    """Reads a YAML file and lays the environment's and the given `key=value` overrides over it.

    name: the run's name from the command line; wins over everything. seeds, folds: repeat every stage that trains a
    classifier once per seed, or per fold of the training rows. Raises ConfigError with one line per error.
    """
    file = _label(path)
    tree = Tree.from_document(document := _read(path), file)
    from_env, faults = from_environment()
    faults += [fault_at(tree, fault.path, fault.message, line=fault.line) for fault in document.faults]
    faults += apply(tree, from_env)
    faults += apply(tree, [Override(argument, COMMAND_LINE) for argument in overrides])
    if name is not None:
        faults += apply(tree, [Override(f"name={name}", COMMAND_LINE)])
    _repeat(tree, seeds, folds)
    faults += expand(tree)
    config, more = check(tree)
    faults += more
    if config is None or faults:
        raise _report(faults, f"mend the file or the arguments, then look at the result: ./run.sh plan {file}")
    provenance = {dotted(key): tree.provenance(key) for key, _ in leaves(config.model_dump())}
    return Resolved(config, provenance)


def _repeat(tree: Tree, seeds: Sequence[int], folds: int | None) -> None:
    """`--seeds` and `--folds` as sweeps."""
    if seeds:
        sweep_all(tree, "seed", seeds, _option(f"--seeds {','.join(map(str, seeds))}"))
    if folds is not None:
        source = _option(f"--folds {folds}")
        for name in classifying(tree, ("finetune",)):
            data = ("stages", name, "data")
            if value_at(tree.root, data) is None and isinstance(value_at(tree.root, ("data",)), dict):
                tree.copy(("data",), data)
            tree.set((*data, "folds"), folds, source)
            if tree.has((*data, "validation")):
                tree.remove((*data, "validation"))  # the fold holds the validation rows
        sweep_all(tree, "data.fold", range(folds), source, ("finetune",))


def _option(text: str) -> Source:
    return Source(COMMAND_LINE, f"{COMMAND_LINE}: {text}", LINE_OF[COMMAND_LINE], is_override=True)


def load_resolved(path: Path) -> Config:
    """Reads back what dump_resolved wrote. Raises ConfigError; the environment plays no part."""
    tree = Tree.from_document(document := _read(path), _label(path))
    faults = [fault_at(tree, fault.path, fault.message, line=fault.line) for fault in document.faults]
    config, more = check(tree)
    if config is None or faults:
        raise _report(faults + more, "this file is written by the launcher; start the run anew under another name")
    return config


def _read(path: Path) -> Document:
    if not os.path.exists(path):  # unlike Path.exists, False for names that are too long
        raise _missing(path)
    try:
        return read_file(path)
    except YamlError as error:
        place = _label(path) + (f":{error.line}" if error.line else "") + (f":{error.column}" if error.column else "")
        raise ConfigError(f"{place}: {error.message}") from error


def _missing(path: Path) -> ConfigError:
    from configs.names import nearest  # only a missing file pays for difflib

    places = dict.fromkeys([path.parent, SHIPPED])
    there = [file for place in places if os.path.isdir(place) for file in sorted(place.glob("*.y*ml"))]
    by_name = {file.stem: _label(file) for file in reversed(there)}
    close = nearest(path.stem, by_name)
    meant = f"; did you mean {by_name[close]}?" if close else ""
    known = ", ".join(_label(file) for file in sorted(SHIPPED.glob("*.yaml")))
    return ConfigError(
        f"{_label(path)}: no such file{meant}", f"name a YAML file; these come with the project: {known}"
    )


def _label(path: Path) -> str:
    """The path as it is called in messages: relative if below the current directory, always one printable
    line."""
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return printable(str(path))


def _report(faults: list[Fault], hint: str) -> ConfigError:
    return ConfigError("\n".join(dict.fromkeys(fault.text for fault in sorted(faults))), hint)
