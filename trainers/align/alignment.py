"""One alignment: inputs, the reference in a process of its own, this side meanwhile, and the comparison."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from safetensors.numpy import load_file

from configs.errors import UnavailableError
from trainers.align import ours
from trainers.align.fixtures import compare_fixtures
from trainers.align.inputs import write_inputs
from trainers.align.rows import CASE_ROWS, RATE_ROWS, TEXT_ROWS, Result, compare_section
from trainers.data.cache import cache_root
from trainers.model_store import resolve_model

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "launcher" / "environment" / "start.py"
REFERENCE_TIMEOUT_S = 1800.0
SECTIONS = {"text": ("text", TEXT_ROWS), "rates": ("learning rates: 12 blocks, 2e-5, 0.95", RATE_ROWS)}
Arrays = dict[str, np.ndarray]


def align(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything in one go: what ./run.sh align shows."""
    started = time.monotonic()
    model = resolve_model(options.model, cache_root() / "models", lambda *_: None)
    inputs = write_inputs(directory, None if options.quick else model.dir, model.vocab, options.threads)
    say(f"inputs written; reference: {options.reference_python}")
    reference = start_reference(directory, options.reference_python)
    try:
        own = our_arrays(directory, inputs)
        wait_for_reference(reference, directory)
    finally:
        if reference.poll() is None:
            reference.kill()
        reference.wait()
    results = compare(directory, inputs, own) + compare_fixtures(options.fixtures)
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PADDLE", "MKL_"))}
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


def our_arrays(directory: Path, inputs: dict[str, Any]) -> dict[str, Arrays]:
    """This side's numbers by section: text, rates and every case."""
    sections = {"text": ours.text_arrays(inputs["text"]), "rates": ours.rate_arrays(inputs["rates"])}
    for case in ours.case_names(list(inputs["cases"])):
        say(f"{case.name}: forward, gradients and {len(inputs['cases'][case.name]['finetune']['order'])} steps of each task")
        sections[case.name] = ours.case_arrays(directory, case, inputs["cases"][case.name])
    return sections


def compare(directory: Path, inputs: dict[str, Any], own: dict[str, Arrays]) -> list[Result]:
    """All rows of all sections."""
    results = []
    for name, arrays in own.items():
        theirs = load_file(directory / "reference" / f"{name}.safetensors")
        start: Arrays = {}
        title, rows = SECTIONS.get(name, ("", CASE_ROWS))
        if name in inputs["cases"]:
            start = load_file(directory / name / "model" / "model.safetensors")
            title = f"{name}: {inputs['cases'][name]['num_layers']} blocks"
        results += compare_section(title, rows, arrays, theirs, start)
    return results
