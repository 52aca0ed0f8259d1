"""Checking a person's own interpreter (conda, modules, container) against the direct requirements.

Run by that interpreter itself, before every command given with --python, so it must stay well under 100 ms:
it reads package metadata and imports none of the packages.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from . import locks
from .errors import USAGE, SetupError

# numpy 1.26, which PaddleNLP needs, has no wheel for 3.13.
OLDEST = (3, 10)
NEWEST = (3, 12)

# Needed to build packages, not to run.
_BUILD_ONLY = frozenset({"pip", "wheel", "setuptools-scm"})
_ALTERNATIVES = {"paddlepaddle": ("paddlepaddle", "paddlepaddle-gpu")}


@dataclass(frozen=True)
class Requirement:
    """A direct requirement: project name and comparisons such as (">=", "1.26")."""

    name: str
    ranges: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return self.name + ",".join(f"{operator}{version}" for operator, version in self.ranges)


@dataclass(frozen=True)
class Lack:
    """A requirement that an interpreter does not meet, and the version it has instead (None: not installed)."""

    requirement: Requirement
    found: str | None


def read_requirements(path: Path) -> list[Requirement]:
    """The requirements of an `.in` file; raises SetupError naming a line that is not understood."""
    requirements = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+?)\s*((?:==|!=|<=|>=|<|>).*)?", line)
        ranges = re.findall(r"(==|!=|<=|>=|<|>)\s*([^,\s]+)", match[2] or "") if match else []
        if match is None:
            raise SetupError(f"{path}:{number}: not a requirement this check understands: {line!r}", USAGE)
        requirements.append(Requirement(match[1], tuple(ranges)))
    return requirements


def sort_key(version: str) -> tuple[tuple[int, ...], int, int]:
    """Order versions as PEP 440 does, as far as releases, a/b/rc and .dev go; a local part (+cu126) is ignored."""
    public = version.partition("+")[0].lower()
    match = re.match(r"v?(\d+(?:\.\d+)*)(?:[.-]?(dev|a|b|rc)(\d*))?", public)
    if match is None:
        return (0,), 0, 0
    release = tuple(int(number) for number in match[1].split("."))
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    stage = {"dev": 0, "a": 1, "b": 2, "rc": 3, None: 4}[match[2]]
    return release, stage, int(match[3] or 0)


def satisfies(version: str, ranges: tuple[tuple[str, str], ...]) -> bool:
    """Whether a version lies in all ranges. `<3.1` excludes pre-releases of 3.1, as pip has it."""
    key = sort_key(version)
    for operator, bound in ranges:
        limit = sort_key(bound)
        if operator == "<" and key[0] == limit[0] and limit[1] == 4 and key[1] < 4:
            return False
        holds = {
            "==": key == limit,
            "!=": key != limit,
            "<": key < limit,
            "<=": key <= limit,
            ">": key > limit,
            ">=": key >= limit,
        }[operator]
        if not holds:
            return False
    return True


def find_lacks(requirements: list[Requirement]) -> list[Lack]:
    """What this interpreter lacks."""
    installed = _installed_by_directory()
    lacks = []
    for requirement in requirements:
        names = _ALTERNATIVES.get(requirement.name, (requirement.name,))
        versions = [installed[key] for name in names if (key := locks.canonical_name(name)) in installed]
        versions = versions or [version for name in names if (version := _installed_by_metadata(name))]
        if not any(satisfies(version, requirement.ranges) for version in versions):
            lacks.append(Lack(requirement, versions[0] if versions else None))
    return lacks


def _installed_by_directory() -> dict[str, str]:
    """Canonical name -> version, from the names of the metadata directories: reading them all takes too long."""
    installed: dict[str, str] = {}
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith(".dist-info"):
                project, _, version = name.removesuffix(".dist-info").partition("-")
                installed.setdefault(locks.canonical_name(project), version)
    return installed


def _installed_by_metadata(name: str) -> str | None:
    """The slow and thorough way, for what was installed in an unusual one (eggs, zipped, in development)."""
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_version(version: tuple[int, int], name: str) -> None:
    """Raise SetupError (exit 2) unless the project runs on this (major, minor)."""
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f"{name} is Python {version[0]}.{version[1]}; the project runs on 3.10, 3.11 and 3.12.\n"
            "  Next: name another interpreter (--python PATH or BERT4DOC_PYTHON), or none: run.sh then finds one.",
            USAGE,
        )


def check(extras: tuple[str, ...], directory: Path = locks.DIRECTORY) -> None:
    """Raise SetupError (exit 2) when this interpreter cannot run the project, with the command that mends it."""
    check_version(sys.version_info[:2], sys.executable)
    requirements = [
        requirement
        for group in locks.groups(extras)
        for requirement in read_requirements(directory / f"{group}.in")
        if requirement.name not in _BUILD_ONLY
    ]
    lacks = find_lacks(requirements)
    if not lacks:
        return
    rows = [f"  {lack.requirement.name:24s} {_wanted(lack):24s} {lack.found or 'not installed'}" for lack in lacks]
    quoted = " ".join(f"'{lack.requirement}'" for lack in lacks)
    raise SetupError(
        f"{sys.executable} lacks {len(lacks)} of the {len(requirements)} packages the project needs:\n"
        f"  {'package':24s} {'wanted':24s} found\n" + "\n".join(rows) + f"\n  Next: {sys.executable} -m pip install "
        f"{quoted}\n  or leave out --python (and BERT4DOC_PYTHON) to use the project's own environment.",
        USAGE,
    )


def _wanted(lack: Lack) -> str:
    return ",".join(f"{operator}{version}" for operator, version in lack.requirement.ranges) or "any"
