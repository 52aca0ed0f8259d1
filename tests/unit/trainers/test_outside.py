"""Weights of other runs: where they are looked for, what is refused, and that another run never changes this one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.loader import Resolved, dump_resolved
from configs.schema import Config
from tests.cli_runs import write_json
from tests.support.tiny import CONFIG, VOCABULARY, write_bert
from trainers.model_store import open_model
from trainers.outside import prepare_starts

PRETRAIN = {"task": "pretrain", "max_steps": 9}


def config_of(name: str, stages: dict[str, Any]) -> Config:
    return Config.model_validate({"name": name, "model": "m", "data": {"dataset": "trec"}, "stages": stages})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A runs directory with the run `other`: stages `a`, then `b` from a@0 and `c` from a; a is finished and kept step 4."""
    other = tmp_path / "other"
    stages = {"a": PRETRAIN, "b": {**PRETRAIN, "init": "a@0"}, "c": {**PRETRAIN, "init": "a"}}
    other.mkdir()
    (other / "config.yaml").write_text(dump_resolved(Resolved(config_of("other", stages), {})))
    write_json(other / "prepared.json", {"model_dir": str(write_bert(tmp_path / "bert", seed=1))})
    for seed, folder in enumerate(("a/model", "a/models/step-00000004", "c/model"), start=2):
        write_bert(other / folder, seed=seed)
    write_json(other / "a" / "done.json", {"step": 9})
    return tmp_path


def starts(runs: Path, **inits: str) -> dict[str, Any]:
    """What is prepared for a run `mine` with one fine-tuning stage per init; kept as prepared.json, as preparation does."""
    stages = {name: {"task": "finetune", "epochs": 1, "init": init} for name, init in inits.items()}
    mine = runs / "mine"
    found = prepare_starts(config_of("mine", stages), mine, open_model(runs / "bert", "bert"))
    write_json(
        mine / "prepared.json",
        {"stages": {name: {"start": dict(start) if start else None} for name, start in found.items()}},
    )
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("init", "folder"),
    [
        ("other/a", "other/a/model"),
        ("other/a@4", "other/a/models/step-00000004"),
        ("other/a@0", "bert"),
        ("other/b@0", "bert"),
        ("other/c@0", "other/a/model"),
    ],
)
def test_the_folder_and_its_sha256(runs: Path, init: str, folder: str) -> None:
    assert starts(runs, f=init)["f"] == {
        "init": init,
        "folder": str(runs / folder),
        "sha256": sha256(runs / folder / "model.safetensors"),
    }


def test_a_stage_of_this_run_needs_nothing_from_outside(runs: Path) -> None:
    assert starts(runs, f="model") == {"f": None}


@pytest.mark.parametrize(
    ("init", "message", "hint"),
    [
        ("nobody/a", "there is no run 'nobody' in .* \\(there are: other\\)", "--name nobody"),
        ("other/d", "run 'other' has no stage 'd'; its stages: a, b, c", "other/a"),
        ("other/c", "stage 'c' of run 'other' is not finished", "./run.sh resume other"),
        ("other/a@5", "there is no model in .*step-00000005; steps that were saved: 4", "step"),
    ],
)
def test_what_is_not_there(runs: Path, init: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"stages\\.f\\.init: {message}") as error:
        starts(runs, f=init)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", json.dumps(CONFIG | {"num_hidden_layers": 3}), "num_hidden_layers 3 instead of 2"),
        ("vocab.txt", "\n".join([*VOCABULARY[:-1], "other"]) + "\n", "another vocabulary"),
        ("tokenizer_config.json", '{"do_lower_case": false}', "do_lower_case False instead of True"),
    ],
)
def test_what_does_not_fit(runs: Path, file: str, content: str, said: str) -> None:
    (runs / "bert" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (runs / "other" / "a" / "model" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    starts(runs, f="other/a")
    (runs / "other" / "a" / "model" / file).write_text(content)
    with pytest.raises(ConfigError, match="does not fit the model bert") as error:
        starts(runs, f="other/a")
    assert said in error.value.message


def test_another_run_that_changes_is_refused_once_something_was_trained(runs: Path) -> None:
    before = starts(runs, f="other/a", g="other/a")
    write_bert(runs / "other" / "a" / "model", seed=9)
    fresh = starts(runs, f="other/a", g="other/a")
    assert fresh["f"]["sha256"] != before["f"]["sha256"], "nothing was trained yet: the new weights count"
    (runs / "mine" / "f" / "checkpoints" / "step-00000001").mkdir(parents=True)
    write_bert(runs / "other" / "a" / "model", seed=10)
    with pytest.raises(ConfigError, match=r"stages\.f\.init: other/a has changed since f began with it"):
        starts(runs, f="other/a", g="other/a")
    with pytest.raises(ConfigError, match=r"stages\.g\.init: other/a has changed since f began with it"):
        starts(runs, g="other/a")


def test_a_finished_stage_keeps_its_record_when_the_other_run_is_gone(runs: Path) -> None:
    before = starts(runs, f="other/a")
    write_json(runs / "mine" / "f" / "done.json", {"step": 1})
    (runs / "other").rename(runs / "moved")
    assert starts(runs, f="other/a") == before
