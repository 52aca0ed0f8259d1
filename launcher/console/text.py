"""How numbers are written on screens, in lines and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

STOPPING = "stopping: checkpoint at the next step (Ctrl-C again: stop now)"
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def duration(seconds: float | None) -> str:
    """`8s`, `1m32s`, `2h05m`, `3d04h`; `-` for unknown."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def size(num_bytes: float) -> str:
    """Bytes with a decimal unit: `412 MB`, `1.3 GB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            value = num_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{num_bytes:.0f} B"


def count(value: float) -> str:
    """Whole numbers with thousands separators."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """`0.42`, `57.8`, `4,812`."""
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def learning_rate(value: float) -> str:
    """Two significant decimals in exponent form: `1.98e-05`."""
    return f"{value:.2e}"


def percent(value: float) -> str:
    """A share as `96.20 %`."""
    return f"{100 * value:.2f} %"


def amounts(done: float, total: float | None, unit: str) -> str:
    """`12,000/25,000 rows`, `12 MB/80 MB`."""
    if unit == "bytes":
        return f"{size(done)}/{size(total)}" if total else size(done)
    amount = f"{count(done)}/{count(total)}" if total else count(done)
    return f"{amount} {unit}".strip()


def plural(number: int, noun: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def english_list(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def printable(text: str) -> str:
    """Text from elsewhere without terminal control sequences; tabs and newlines stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))
