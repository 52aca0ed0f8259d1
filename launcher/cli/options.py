"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from configs.errors import ConfigError

MAX_SEEDS = 200

ConfigArgument = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="A YAML file, or the name of one in configs/ (trec).", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Values of the config to change: stages.finetune.lr=3e-5", show_default=False
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run (./run.sh runs).", show_default=False)]
HeadOption = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="NAME",
        help="Of a multi-task stage: the data set whose classifier to use.",
        show_default=False,
    ),
]
RunOrFolderArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER", help="Name of a run, or the folder of a model as a path (with a /).", show_default=False
    ),
]
StageOption = Annotated[
    str | None,
    typer.Option("--stage", metavar="S", help="Only this stage, or this group of stages.", show_default=False),
]
OneStageOption = Annotated[
    str | None,
    typer.Option(
        "--stage", metavar="S", help="A finished stage. Default: the last one with a classifier.", show_default=False
    ),
]
RerunOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rerun",
        metavar="S",
        help="Train this stage (or group) anew, and what starts from it; what it had is kept in superseded/. Repeatable.",
        show_default=False,
    ),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="1,2,3|1-5",
        help="Train every classification stage once per seed; the results are summed up as mean and spread.",
        show_default=False,
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        "--folds",
        metavar="K",
        min=2,
        max=100,
        help="K-fold cross-validation of every classification stage, on the training rows.",
        show_default=False,
    ),
]
NprocOption = Annotated[
    str | None,
    typer.Option(
        "--nproc-per-node",
        metavar="auto|N",
        help="Ranks. auto: all GPUs, or half the cores on CPU (at least 1). A continued run keeps its number.",
        show_default=False,
    ),
]
DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", metavar="0,1", help="GPUs by number, as nvidia-smi shows them.", show_default=False),
]
ResumeOption = Annotated[
    str,
    typer.Option(
        "--resume",
        metavar="auto|never|PATH",
        help="auto: go on where a run of this name stopped. never: only start a new one. PATH: a checkpoint directory.",
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the run instead of the config's.", show_default=False),
]
ChaosOption = Annotated[
    list[str] | None,
    typer.Option(
        "--chaos",
        metavar="FAULT",
        help="A fault on purpose, to rehearse one: kill:1@20 kills rank 1 when 20 steps are done; also hang, spin, stop, raise, nan,"
        " exit0, slow, segv, term, oom. RANK@STAGE:STEP for another stage than the first unfinished; each happens once in the"
        " run, with every: before it again and again. Repeatable.",
        show_default=False,
    ),
]
RunsDirOption = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir", metavar="DIR", help="Where runs are kept. Also: BERT4DOC_RUNS. Default: runs/", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


def read_seeds(text: str | None) -> tuple[int, ...]:
    """`1,2,3` or `1-5` as numbers. Raises ConfigError for anything else."""
    seeds: list[int] = []
    for part in text.split(",") if text is not None else ():
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_SEEDS:
            raise ConfigError(f"--seeds {text}: '{part.strip()}' is no seed", "--seeds 1,2,3 or --seeds 1-5")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}: a seed stands there twice", "--seeds 1,2,3 or --seeds 1-5")
    return tuple(seeds)
