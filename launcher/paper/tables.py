"""The paper's error figures, and which config and stage makes each of them again."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("tables.json")
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "paper"


@dataclass(frozen=True)
class Cell:
    """One figure: test error in %."""

    table: int
    row: str
    column: str
    error: float
    config: str
    """Name of the file in configs/paper/, without its ending."""
    stage: str
    """The stage, or the group of stages, whose test error it is."""

    @property
    def error_text(self) -> str:
        """As the paper prints it: two decimals."""
        return f"{self.error:.2f}"


@dataclass(frozen=True)
class Paper:
    """All tables."""

    source: str
    titles: Mapping[int, str]
    cells: tuple[Cell, ...]

    def table(self, number: int) -> tuple[Cell, ...]:
        """The cells of one table, in its order."""
        return tuple(cell for cell in self.cells if cell.table == number)

    def of_config(self, config: str) -> tuple[Cell, ...]:
        """The cells that a config makes again."""
        return tuple(cell for cell in self.cells if cell.config == config)

    @property
    def configs(self) -> tuple[str, ...]:
        """The names of all configs, in the order of the tables."""
        return tuple(dict.fromkeys(cell.config for cell in self.cells))


@functools.cache
def load() -> Paper:
    """Reads tables.json."""
    value = json.loads(FILE.read_text(encoding="utf-8"))
    titles = {int(number): title for number, title in value["titles"].items()}
    return Paper(value["source"], titles, tuple(Cell(**cell) for cell in value["cells"]))
