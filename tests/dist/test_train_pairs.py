"""A run on pairs of texts that starts from imported weights: its model knows that it takes pairs, and predict gives what the run's test gave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import pickles, tiny
from tests.support.training import ROOT, Ranks, make_run, rank_environment

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow]


def write_pairs(path: Path, num_rows: int, seed: int) -> list[tuple[str, str]]:
    """Rows whose second text gives the label away."""
    rng = np.random.default_rng(seed)
    rows = []
    for row in range(num_rows):
        name = tiny.CLASSES[row % 3]
        rows.append((" ".join(rng.choice(tiny.FILLERS, 4)), " ".join(rng.choice(tiny.TOPICS[name], 3)), name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("question\tanswer\tkind\n" + "".join("\t".join(row) + "\n" for row in rows))
    return [row[:2] for row in rows]


def test_a_run_on_pairs(tmp_path: Path) -> None:
    bert = tiny.write_bert(tmp_path / "old")
    (bert / "model.safetensors").unlink()
    pickles.write_torch(bert / "pytorch_model.bin", tiny.random_tensors(tiny.hf_shapes()))
    arguments = ["--from", str(bert), "--to", str(tmp_path / "bert"), "--i-trust-this-file"]
    subprocess.run(
        [sys.executable, "-m", "trainers.import_model", *arguments], cwd=ROOT, env=rank_environment(), check=True, timeout=120
    )
    write_pairs(tmp_path / "table" / "train.tsv", 30, 1)
    pairs = write_pairs(tmp_path / "table" / "test.tsv", 12, 2)
    columns = {"text": "question", "text_pair": "answer", "label": "kind"}
    config = {
        "model": str(tmp_path / "bert"),
        "data": {"dataset": "tsv", "path": str(tmp_path / "table"), "validation": 6, "columns": columns},
        "stages": {"finetune": {"epochs": 2, "batch": 8, "lr": 1e-2, "max_length": 24}},
    }
    run = make_run(tmp_path / "runs" / "pairs", config, tmp_path / "cache")
    Ranks(run, 1, "finetune").wait()
    assert json.loads((run / "finetune" / "model" / "bert4doc.json").read_text())["pairs"] is True
    command = [sys.executable, "-m", "trainers.predict", "--run-dir", str(run), "--probabilities", "--file"]
    done = subprocess.run(
        [*command, str(tmp_path / "table" / "test.tsv")],
        cwd=ROOT,
        env=rank_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    predicted = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [tuple(row[-2:]) for row in predicted] == pairs
    tested = [line.split("\t") for line in (run / "finetune" / "predictions.tsv").read_text().splitlines()[1:]]
    assert [row[0] for row in predicted] == [row[2] for row in tested]
    chances, expected = (np.array([row[at : at + 3] for row in rows], float) for rows, at in ((predicted, 2), (tested, 3)))
    np.testing.assert_allclose(chances, expected, atol=2e-6)
