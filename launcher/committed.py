"""How far a run is saved, read from its directory: finished stages and committed checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from launcher.spec import LaunchSpec


def finished_stages(run_dir: Path) -> frozenset[str]:
    """The stages whose result is written."""
    return frozenset(path.parent.name for path in run_dir.glob("*/done.json"))


def committed(run_dir: Path, launch: LaunchSpec) -> tuple[int, int]:
    """Number of finished stages, and the step that the next attempt of `launch` goes on from in the next one."""
    stage = launch.stages[0] if launch.stages else ""
    named = Path(launch.resume_from)
    if launch.resume_from and named.parent.parent.name == stage:
        return len(finished_stages(run_dir)), checkpoint_step(named)
    found = [checkpoint_step(path.parent) for path in (run_dir / stage).glob("checkpoints/step-*/manifest.json")]
    return len(finished_stages(run_dir)), max(found, default=0)


def checkpoint_step(directory: Path) -> int:
    """The step in a checkpoint directory's name; 0 for any other name."""
    match = re.fullmatch(r"step-(\d+)", directory.name)
    return int(match[1]) if match else 0
