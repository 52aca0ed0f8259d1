"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
StageOption = Annotated[str | None, typer.Option("--stage", metavar="S", help="Only this stage.", show_default=False)]
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
