"""One alignment: inputs, the reference in a process of its own, this side meanwhile, and the comparison."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file

from configs.errors import UnavailableError
from trainers.align import ours, settings
from trainers.align.fixtures import compare_fixtures
from trainers.align.inputs import write_inputs
from trainers.align.rows import (
    FINETUNING_ROWS,
    PRETRAINING_ROWS,
    RATE_ROWS,
    TEXT_ROWS,
    VARIANT_ROWS,
    Result,
    Row,
    compare_row,
)
from trainers.data.cache import cache_root
from trainers.engine.ranks import tune_device
from trainers.model_store import resolve_model

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "launcher" / "environment" / "start.py"
REFERENCE_TIMEOUT_S = 1800.0
Arrays = dict[str, np.ndarray]


def align(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything in one go: what ./run.sh align shows."""
    started = time.monotonic()
    tune_device()
    model = resolve_model(options.model, cache_root() / "models", lambda *_: None)
    inputs = write_inputs(directory, None if options.quick else model, model.vocab, options.threads)
    say(f"inputs written; reference: {options.reference_python}")
    reference = start_reference(directory, options.reference_python)
    own: dict[str, Arrays] = {}
    try:
        for section in sections(directory, inputs):
            if reference.poll():
                break  # what it said comes below, without minutes of work for nothing
            say(f"this side: {section.title}")
            own[section.name] = section.compute()
        wait_for_reference(reference, directory)
    finally:
        if reference.poll() is None:
            reference.kill()
        reference.wait()
    results = [result for each in sections(directory, inputs) for result in compare(directory, each, own[each.name])]
    results += compare_fixtures(options.fixtures)
    facts = json.loads((directory / "reference" / "reference.json").read_text(encoding="utf-8"))
    return {
        "passed": all(result.status != "fail" for result in results),
        "paddle": paddle.__version__,
        **{name: facts[name] for name in ("torch", "transformers")},
        "model": model.name,
        "seconds": round(time.monotonic() - started, 1),
        "rows": [result.to_json() for result in results],
    }


def say(text: str) -> None:
    """Progress for the person who waits."""
    print(text, file=sys.stderr, flush=True)


# The reference ----------------------------------------------------------------------------------------------------------


def start_reference(directory: Path, python: str) -> subprocess.Popen[bytes]:
    """Start the other side on a written directory; its output goes to reference.log."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PADDLE", "MKL_"))
    }
    # nothing is looked up on a hub, and PyTorch's own threads are set by inputs.json
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, str(START), "trainers.align.reference", str(directory)]
    with (directory / "reference.log").open("wb") as log:
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=directory
            )
        except OSError as error:
            raise UnavailableError(
                f"the reference interpreter {python} cannot be started: {error.strerror}",
                "leave out --reference-python (and BERT4DOC_ALIGN_PYTHON): ./run.sh align makes its own",
            ) from error


def wait_for_reference(reference: subprocess.Popen[bytes], directory: Path) -> None:
    """Wait for the other side's answer. Raises UnavailableError with its last words when it fails."""
    if reference.poll() is None:
        say("this side is done; waiting for the reference")
    code = reference.wait(REFERENCE_TIMEOUT_S)
    if code != 0:
        said = (directory / "reference.log").read_text(errors="replace").strip().splitlines() or ["nothing"]
        raise UnavailableError(
            f"the reference ended with exit code {code}; it said: {said[-1]}",
            "it needs torch, transformers, safetensors and scikit-learn; ./run.sh align without --reference-python makes "
            "its own environment",
        )


# This side and the comparison -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A group of rows whose numbers are computed together, and the file of the reference that holds theirs."""

    name: str
    title: str
    rows: tuple[Row, ...]
    compute: Callable[[], Arrays]
    start: Path | None = None
    """The weights before training, for the scale of the weight rows."""


def sections(directory: Path, inputs: Mapping[str, Any]) -> list[Section]:
    """What is compared, in the order of the table. A new comparison is a row here or in rows.py, and its arrays on both sides."""
    found = [
        Section("text", "Text", TEXT_ROWS, lambda: ours.text_arrays(inputs["text"])),
        Section(
            "rates",
            f"Every parameter of {settings.NUM_BLOCKS} blocks at every step",
            RATE_ROWS,
            lambda: ours.rate_arrays(inputs["rates"]),
        ),
    ]
    for name, spec in inputs["cases"].items():
        case = settings.random_case() if name == settings.RANDOM else settings.pretrained_case(name)
        folder, title = directory / name, f"{spec['title']}: {{}}"
        start = folder / "model" / "model.safetensors"
        finetuning = partial(ours.finetuning_arrays, folder, case.finetune, spec)
        pretraining = partial(ours.pretraining_arrays, folder, case.pretrain, spec)
        found += [
            Section(f"{name} fine-tuning", title.format("fine-tuning"), FINETUNING_ROWS, finetuning, start),
            Section(f"{name} pre-training", title.format("pre-training"), PRETRAINING_ROWS, pretraining, start),
        ]
        for variant, stage in case.variants.items():
            compute = partial(ours.variant_arrays, folder, stage, spec)
            found.append(Section(f"{name} {variant}", title.format(variant), VARIANT_ROWS[variant], compute, start))
    return found


def compare(directory: Path, section: Section, own: Arrays) -> list[Result]:
    """All rows of a section, once the reference has answered."""
    theirs = load_file(directory / "reference" / f"{section.name}.safetensors")
    start = {} if section.start is None else load_file(section.start)
    return [compare_row(section.title, row, own, theirs, start) for row in section.rows]
