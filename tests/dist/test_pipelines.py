"""Pipelines over stages and runs, through the command line: seeds, changed settings, weights of another run. Trainings of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import Exit
from tests.cli_runs import launcher
from tests.support.tiny import write_bert, write_corpus, write_tsv

pytest.importorskip("paddle", reason="needs Paddle")
pytestmark = [pytest.mark.dist, pytest.mark.slow]

FINETUNE: dict[str, Any] = {"task": "finetune", "max_steps": 16, "batch": 8, "lr": 5e-3, "max_length": 24}


def write_config(folder: Path, name: str, stages: dict[str, Any], **top: Any) -> str:
    values: dict[str, Any] = {"model": str(folder / "bert"), "data": {"dataset": "tsv", "path": str(folder / "table"), "validation": 10}}
    values["data"]["files"] = {"train": "train.tsv", "test": "test.tsv"}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, **values, **top, "stages": stages}, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines")
    write_bert(path / "bert")
    write_tsv(path / "table" / "train.tsv", 60, seed=1)
    write_tsv(path / "table" / "test.tsv", 30, seed=2)
    write_corpus(path / "corpus" / "corpus.txt", 40, seed=3)
    return path


def train(folder: Path, config: str, *arguments: str, code: int = 0) -> str:
    done = launcher("train", config, *arguments, runs_dir=folder, BERT4DOC_CACHE=str(folder / "cache"))
    assert done.returncode == code, done.stdout[-3000:] + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def first(folder: Path) -> tuple[Path, str]:
    """A run of pre-training, then fine-tuning with two seeds."""
    corpus = {"dataset": "text", "path": str(folder / "corpus")}
    pretrain = {"data": corpus, "max_steps": 6, "batch": 8, "lr": 1e-2, "max_length": 24, "splits": ["train"]}
    config = write_config(folder, "first", {"pretrain": pretrain, "finetune": FINETUNE})
    said = train(folder, config, "--seeds", "1,2")
    assert "finetune (2)" in said
    return folder / "first", config


def weights(stage: Path) -> bytes:
    return (stage / "model" / "model.safetensors").read_bytes()


def test_seeds_are_summed_up(folder: Path, first: tuple[Path, str]) -> None:
    run, _ = first
    assert weights(run / "finetune-seed1") != weights(run / "finetune-seed2")
    (report,) = json.loads(launcher("report", "first", "--json", runs_dir=folder).stdout)
    (group,) = report["groups"]
    errors = [json.loads((run / f"finetune-seed{seed}" / "eval.json").read_text())["error_rate"] for seed in (1, 2)]
    assert group["repeated"]
    assert errors[0] != errors[1]
    assert group["error_rate"]["mean"] == pytest.approx(sum(errors) / 2)
    assert group["error_rate"]["sd"] == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5)


def test_another_run_goes_on_from_its_stage_with_its_own_seed(folder: Path, first: tuple[Path, str]) -> None:
    """Seed 1 of the sweep and a run with seed 1 that starts from the first run's stage are the same training, to the last bit. Then
    the first run's weights change: what has begun with them is safe, and nothing is mixed with it."""
    run, _ = first
    config = write_config(folder, "second", {"tuned": {**FINETUNE, "init": "first/pretrain"}}, seed=1)
    train(folder, config)
    assert weights(folder / "second" / "tuned") == weights(run / "finetune-seed1")
    start = json.loads((folder / "second" / "prepared.json").read_text())["stages"]["tuned"]["start"]
    assert start["folder"] == str(run / "pretrain" / "model")
    assert json.loads((folder / "second" / "versions.json").read_text())["starts"]["tuned"]["init"] == "first/pretrain"

    path = run / "pretrain" / "model" / "model.safetensors"
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    more = write_config(
        folder,
        "second",
        {"tuned": {**FINETUNE, "init": "first/pretrain"}, "again": {**FINETUNE, "init": "first/pretrain", "seed": 5}},
        seed=1,
    )
    said = train(folder, more, code=Exit.USAGE)
    assert "stages.again.init: first/pretrain has changed since tuned began with it" in said
    assert "--rerun tuned" in said
    path.write_bytes(original)
    assert (folder / "second" / "tuned" / "done.json").exists()


def test_a_changed_setting_trains_only_what_it_concerns_anew(folder: Path, first: tuple[Path, str]) -> None:
    run, config = first
    before = {stage: weights(run / stage) for stage in ("pretrain", "finetune-seed1", "finetune-seed2")}
    stamp = (run / "pretrain" / "done.json").stat().st_mtime_ns
    said = train(folder, config, "--seeds", "1,2", "finetune.max_steps=17")
    assert "stages finetune-seed1, finetune-seed2: trained anew (max_steps: 16 -> 17)" in said
    assert (run / "pretrain" / "done.json").stat().st_mtime_ns == stamp
    assert (run / "superseded" / "finetune-seed1-001" / "model" / "model.safetensors").read_bytes() == before["finetune-seed1"]
    for seed in (1, 2):
        assert json.loads((run / f"finetune-seed{seed}" / "done.json").read_text())["step"] == 17
        assert weights(run / f"finetune-seed{seed}") != before[f"finetune-seed{seed}"]
    assert "nothing to do" in train(folder, config, "--seeds", "1,2", "finetune.max_steps=17")
