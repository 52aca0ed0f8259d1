"""The lock files: which exist, what they pin, and the text that identifies their contents.

The format is pip's, as uv writes it: `name==version [; marker] \\` followed by indented `--hash=` lines.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import USAGE, SetupError

DIRECTORY = Path(__file__).resolve().parent / "requirements"
BASE = "base"
DEFAULT_EXTRAS = ("quickstart", "test")

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$")


@dataclass(frozen=True)
class Pin:
    """One locked package: its requirement with hashes (`text`) and whether its marker holds for an interpreter."""

    name: str
    version: str
    marker: str
    text: str


def canonical_name(name: str) -> str:
    """The project name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def extras(directory: Path = DIRECTORY) -> list[str]:
    """Names of the extras that have a lock file."""
    return sorted(path.stem for path in directory.glob("*.lock") if path.stem != BASE)


def groups(chosen: tuple[str, ...]) -> list[str]:
    """The lock files of an environment with these extras."""
    return [BASE, *chosen]


def identity(directory: Path = DIRECTORY) -> str:
    """The sha256 lines of all lock files, exactly as `sha256sum -- *.lock` prints them in their directory.

    run.sh compares this text with the stamp of the environment without starting Python.
    """
    lines = []
    for path in sorted(directory.glob("*.lock"), key=lambda path: path.name.encode()):
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    return "\n".join(lines)


def read_pins(groups: list[str], python_version: str, directory: Path = DIRECTORY) -> list[Pin]:
    """The pins of the named lock files that apply to `python_version` ("3.11.2") on this machine, without doubles."""
    pins: dict[str, Pin] = {}
    for group in groups:
        for pin in parse_lock(directory / f"{group}.lock"):
            if marker_holds(pin.marker, python_version):
                pins.setdefault(pin.name, pin)
    return list(pins.values())


def parse_lock(path: Path) -> list[Pin]:
    """All pins of a lock file; raises SetupError naming the line that is not understood."""
    pins: list[Pin] = []
    block: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        if line.startswith(" ") and block:
            block.append(line)
            continue
        if block:
            pins.append(_pin(block))
        if not _PIN.match(line):
            raise SetupError(f"{path}:{number}: not a pinned requirement: {line!r}", USAGE)
        block = [line]
    if block:
        pins.append(_pin(block))
    return pins


def _pin(block: list[str]) -> Pin:
    match = _PIN.match(block[0])
    if match is None:
        raise ValueError(block[0])
    # The last line of a block may end in a continuation when comments followed it.
    text = "\n".join(block).rstrip().removesuffix("\\").rstrip()
    return Pin(match["name"], match["version"], (match["marker"] or "").strip(), text)


def marker_holds(marker: str, python_version: str) -> bool:
    """Evaluate the environment markers uv writes: comparisons joined by `and` and `or`, without parentheses.

    Used for counting and for `pip check`-like reports; pip itself evaluates the marker that decides.
    """
    if not marker:
        return True
    values = {
        "python_full_version": python_version,
        "python_version": ".".join(python_version.split(".")[:2]),
        "sys_platform": sys.platform,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
    }
    return any(
        all(_comparison_holds(comparison, values) for comparison in re.split(r"\s+and\s+", alternative))
        for alternative in re.split(r"\s+or\s+", marker)
    )


def _comparison_holds(comparison: str, values: dict[str, str]) -> bool:
    match = re.fullmatch(r"\(?\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*'([^']*)'\s*\)?", comparison.strip())
    if match is None or match[1] not in values:
        return True
    left, operator, right = values[match[1]], match[2], match[3]
    if match[1].startswith("python_"):
        if right.endswith(".*"):
            inside = left == right[:-2] or left.startswith(right[:-1])
            return inside if operator == "==" else not inside
        return _compare(_numbers(left), operator, _numbers(right))
    return left == right if operator == "==" else left != right


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def _compare(left: tuple[int, ...], operator: str, right: tuple[int, ...]) -> bool:
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]
