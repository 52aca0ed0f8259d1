"""Where things are: the source tree, the runs, the config that a command names."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS_VARIABLE = "BERT4DOC_RUNS"


def runs_dir(option: Path | None) -> Path:
    """The directory of all runs, absolute, symbolic links followed: --runs-dir, else BERT4DOC_RUNS, else runs/ beside the sources."""
    chosen = option or Path(os.environ.get(RUNS_VARIABLE) or ROOT / "runs")
    return chosen.expanduser().resolve()


def config_path(argument: str) -> Path:
    """The config file that an argument names: a path, or the bare name of one that ships (`trec`: configs/trec.yaml;
    `table2-head-imdb`: configs/paper/table2-head-imdb.yaml).

    The file may not exist: the loader then says so and what was probably meant.
    """
    path = Path(argument).expanduser()
    if path.is_file() or path.suffix or len(path.parts) != 1:
        return path
    of_paper = ROOT / "configs" / "paper" / f"{argument}.yaml"
    return of_paper if of_paper.is_file() else ROOT / "configs" / f"{argument}.yaml"


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it is below the current directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
