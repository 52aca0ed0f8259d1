"""configs/paper/*.yaml as text: header with the paper's figures, then the recipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from launcher.paper.recipes import CHINESE, LARGE, Recipe, data_of
from launcher.paper.tables import Cell, Paper

WIDTH = 120
NEEDS = {CHINESE: "Chinese BERT-base (410 MB)", LARGE: "BERT-large (1.3 GB)"}
SIZES = {LARGE: "4.0", CHINESE: "1.2"}
"""GB of a checkpoint with its optimizer."""


def render(name: str, recipe: Recipe, paper: Paper) -> str:
    """The text of one file."""
    header = "".join(f"# {line}".rstrip() + "\n" for line in _header(name, recipe, paper))
    values = {"name": name, "model": recipe.model, "data": data_of(recipe.data), "stages": recipe.stages}
    train = {"train": {"log_every": 50, "checkpoint_every": 1000}}
    return header + "\n" + "".join(_lines(values | train, 0))


def _header(name: str, recipe: Recipe, paper: Paper) -> Iterator[str]:
    cells = paper.of_config(name)
    yield "yaml-language-server: $schema=../schema.json"
    yield ""
    number = cells[0].table
    yield from textwrap.wrap(f"Table {number} of the paper: {recipe.about}", WIDTH - 2)
    for line in quotes(cells):
        yield from textwrap.wrap(f"paper:    {line}", WIDTH - 2, subsequent_indent=" " * 10)
    own = "your own copy of the data (data.path); " if recipe.data == "sogou" else ""
    model = NEEDS.get(recipe.model, "BERT-base (440 MB)")
    size = SIZES.get(recipe.model, "1.3")
    needs = f"needs:    {own}{model}; a GPU with 16 GB, better several; {size} GB per checkpoint"
    yield from textwrap.wrap(needs, WIDTH - 2, subsequent_indent=" " * 10)
    path = " data.path=/data/sogou" if recipe.data == "sogou" else ""
    yield f"run:      ./run.sh train configs/paper/{name}.yaml{path} --seeds 1,2,3"
    if len(recipe.stages) > 2:
        yield f"one task: ./run.sh train configs/paper/{name}.yaml --stage {cells[0].stage}"
        yield "          (after the stages that it starts from)"
    yield "compare:  ./run.sh report --paper"
    yield f"written by python -m launcher.paper, from {paper.source.split('?')[0]}?"


def quotes(cells: tuple[Cell, ...]) -> list[str]:
    """The figures, one line per row of a table; one line per table where it has a single column."""
    found: dict[tuple[int, str], list[tuple[str, str]]] = {}
    columns = {
        table: {cell.column for cell in cells if cell.table == table} for table in {cell.table for cell in cells}
    }
    for cell in cells:
        single = len(columns[cell.table]) == 1
        shared, own = (cell.column, cell.row) if single else (cell.row, cell.column)
        found.setdefault((cell.table, shared), []).append((own, cell.error_text))
    return [
        f"table {table}, {shared}, error %: " + ", ".join(f"{own} {error}" for own, error in figures)
        for (table, shared), figures in found.items()
    ]


def _lines(values: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, value in values.items():
        if isinstance(value, Mapping) and (depth == 0 or len(_flow(value)) > 60):
            yield f"{indent}{key}:\n"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{indent}{key}:\n"
            yield from (f"{indent}  - {_flow(item)}\n" for item in value)
        else:
            yield f"{indent}{key}: {_flow(value)}\n"
        if depth == 0 and key in ("data", "stages"):
            yield "\n"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, float):
        text = f"{value:.12g}".replace("e-0", "e-")
        return text if any(sign in text for sign in ".e") else f"{text}.0"
    if isinstance(value, str):
        return str(yaml.safe_dump(value, width=float("inf"))).removesuffix("\n").removesuffix("\n...")
    return str(value).lower() if isinstance(value, bool) else str(value)
