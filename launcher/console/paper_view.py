"""`report --paper` as tables: one per table of the paper of which there is a run."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.console.tables import Column
from launcher.paper.comparison import Repeated
from launcher.paper.tables import Paper

Row = tuple[str, ...]
COLUMNS = (
    Column("row"),
    Column("column"),
    Column("paper", right=True),
    Column("ours", right=True),
    Column("more", right=True),
    Column("n", right=True),
    Column("run"),
)
MAX_DIFFERENCES = 6


def title(paper: Paper, table: int) -> str:
    """`Table 2: Ways to shorten a long text, test error in %`."""
    return f"Table {table}: {paper.titles[table]}; test error in %"


def rows(paper: Paper, table: int, repeated: Sequence[Repeated]) -> list[Row]:
    """The cells of one table that were made again."""
    return [_row(each) for each in repeated if each.cell.table == table]


def _row(each: Repeated) -> Row:
    error, cell = each.error, each.cell
    ours = f"{error.mean:.2f}" + (f" ± {error.sd:.2f}" if error.sd is not None else "")
    mark = "*" if each.differences or each.split != "test" else ""
    return (
        cell.row,
        cell.column,
        cell.error_text,
        ours + mark,
        f"{error.mean - cell.error:+.2f}",
        str(error.n),
        each.run,
    )


def notes(repeated: Sequence[Repeated]) -> list[str]:
    """What stands below the tables: which runs did something else than the paper."""
    lines = []
    by_run: dict[str, dict[str, None]] = {}
    for each in repeated:
        own = [*each.differences, *([] if each.split == "test" else [f"figures of the {each.split} split"])]
        if own:
            by_run.setdefault(each.run, {}).update(dict.fromkeys(own))
    for run, found in by_run.items():
        shown, more = list(found)[:MAX_DIFFERENCES], len(found) - MAX_DIFFERENCES
        lines.append(f"* {run}: {'; '.join(shown)}{f'; and {more} more' if more > 0 else ''}")
    if any(each.error.sd is not None for each in repeated):
        lines.append("± standard deviation (n - 1) over n seeds; more: ours minus the paper's, in points")
    return lines


def counts(paper: Paper, repeated: Sequence[Repeated]) -> list[str]:
    """How much of each table is there, and how to make more of it."""
    lines = []
    for table in paper.titles:
        cells = paper.table(table)
        done = {each.cell for each in repeated} & set(cells)
        missing = next((cell for cell in cells if cell not in done), None)
        hint = f"; next: ./run.sh train configs/paper/{missing.config}.yaml" if missing else ""
        lines.append(f"table {table}: {len(done)} of {len(cells)} figures{hint}")
    return lines
