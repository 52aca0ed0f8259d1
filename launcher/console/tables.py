"""Tables that commands end with: results of a run, the list of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Column:
    """Heading and alignment of a column."""

    heading: str
    right: bool = False


def make_table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], ascii_only: bool = False) -> Table:
    """A plain table with a rule under its headings; cells are text, never markup."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.ASCII2 if ascii_only else box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 1),
    )
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
