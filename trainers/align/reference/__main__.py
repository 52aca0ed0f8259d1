"""`python -m trainers.align.reference DIRECTORY`: reads DIRECTORY/inputs.json, writes DIRECTORY/reference/."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from trainers.align.reference import rates, text
from trainers.align.reference.case import compute_case


def main(directory: Path) -> None:
    """Compute every section; reference.json is written last, so it marks a complete answer."""
    started = time.monotonic()
    torch.manual_seed(0)
    inputs: dict[str, Any] = json.loads((directory / "inputs.json").read_text(encoding="utf-8"))
    torch.set_num_threads(int(inputs["threads"]))
    results = directory / "reference"
    results.mkdir(exist_ok=True)
    save(results / "text.safetensors", text.compute_text(inputs["text"]))
    save(results / "rates.safetensors", rates.compute_rates(inputs["rates"]))
    for name, case in inputs["cases"].items():
        for task, arrays in compute_case(directory / name, case).items():
            save(results / f"{name} {task}.safetensors", arrays)
    facts = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seconds": round(time.monotonic() - started, 1),
    }
    (results / "reference.json").write_text(json.dumps(facts), encoding="utf-8")


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Contiguous copies, because safetensors writes memory as it lies."""
    save_file({name: np.array(array, order="C", copy=True) for name, array in arrays.items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
