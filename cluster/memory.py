"""Memory of this machine and of this process's control group, for the words after a failure. Linux, standard library
only."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cluster.processes import own_cgroup


def describe_memory() -> str:
    """`1.2 of 16.8 GB available; control group: 3.9 of 4.3 GB used, most 4.3 GB, 1 out-of-memory kill`."""
    parts = [_machine(_numbers(Path("/proc/meminfo"), ":", 1024)), _group(own_cgroup())]
    return "; ".join(part for part in parts if part)


def _machine(facts: dict[str, int]) -> str:
    if "MemAvailable" not in facts or "MemTotal" not in facts:
        return ""
    return f"{_gb(facts['MemAvailable'])} of {_gb(facts['MemTotal'])} GB available"


def _group(group: Path) -> str:
    used, limit, most = (_number(group / f"memory.{name}") for name in ("current", "max", "peak"))
    if used is None:
        return ""
    of = f" of {_gb(limit)}" if limit is not None else ""
    peak = f", most {_gb(most)} GB" if most is not None else ""
    kills = _numbers(group / "memory.events", " ", 1).get("oom_kill", 0)
    counted = f", {kills} out-of-memory kill{'s' if kills != 1 else ''}" if kills else ""
    return f"control group: {_gb(used)}{of} GB used{peak}{counted}"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f}"


def _number(path: Path) -> int | None:
    """The whole number in a file; None for "max" and for a file that is not there."""
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None


def _numbers(path: Path, separator: str, unit: int) -> dict[str, int]:
    """Lines of `name<separator> number ...`, times the unit."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(separator)
            if rest.split() and rest.split()[0].isdigit():
                found[name] = int(rest.split()[0]) * unit
    return found
