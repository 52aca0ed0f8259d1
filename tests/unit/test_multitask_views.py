"""What the control side shows of a multi-task stage: the plan, the screen while it trains, its results."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.inventory import NodeShape
from configs.loader import load_config
from configs.schema import Config, MultitaskStage
from launcher.batches import count_steps
from launcher.console import metrics, plan_view
from launcher.console.state import Header, RunView, StageView, reduce
from launcher.facts import Facts, ModelFacts, StageFacts, prepared_stages
from launcher.plan import Plan, Task, make_plan
from launcher.request import absolute
from launcher.results import read_results, result_rows
from launcher.topology import Topology

MINILM = ModelFacts("all-minilm-l6-v2", 6, 384, 1536, 12, 30522, 22_713_216, "config.json")
PREPARED = {
    "stages": {
        "multitask": {
            "task": "multitask",
            "label_names": None,
            "num_examples": 148,
            "data_sets": {
                "imdb": {"num_examples": 100, "label_names": ["neg", "pos"]},
                "ag": {"num_examples": 48, "label_names": ["a", "b", "c", "d"]},
            },
        }
    }
}


def config(mixing: Any = "proportional") -> Config:
    stage = {
        "task": "multitask",
        "data_sets": {"imdb": {"dataset": "imdb"}, "ag": {"dataset": "ag_news"}},
        "epochs": 2,
        "batch": 8,
        "mixing": mixing,
        "early_stopping": {"patience": 2},
    }
    return Config.model_validate({"name": "many", "model": "all-minilm-l6-v2", "stages": {"multitask": stage}})


def plan_of(mixing: Any, stages: dict[str, StageFacts]) -> Plan:
    task = Task("/project", "/env/bin/python", "/runs/many", "many.yaml", ("multitask",))
    facts = Facts(2, 16 * 10**9, 10**11, start_port=2000, model=MINILM, stages=stages, environment={"PATH": "/bin"})
    return make_plan(config(mixing), Topology((NodeShape(nproc=2),)), facts, task)


def page(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=100, record=True, markup=False, highlight=False, emoji=False)
    console.print(plan_view.render(plan))
    return console.export_text()


def test_a_plan_shares_out_the_steps() -> None:
    """13 batches of imdb (100 / 8) and 6 of ag, twice; its heads have 2 + 4 classes."""
    plan = plan_of("proportional", prepared_stages(PREPARED))
    (stage,) = plan.stages
    assert (stage.steps.steps_per_epoch, stage.steps.total_steps) == (19, 38)
    assert [(each.name, each.num_examples, each.num_labels, each.steps_per_epoch) for each in stage.data_sets] == [
        ("imdb", 100, 2, 13),
        ("ag", 48, 4, 6),
    ]
    assert [each.share for each in stage.data_sets] == [13 / 19, 6 / 19]
    assert stage.memory is not None
    assert stage.memory.weights == 4 * (22_713_216 + 6 * 384 + 6)
    assert stage.disk is not None
    assert stage.disk.num_checkpoints == 4, "two newest, the one being written, the best"
    json.dumps(plan.to_json())
    text = page(plan)
    assert "data sets drawn  in proportion to their sizes" in text
    assert "every epoch, best by mean accuracy, early stopping after 2 without improvement" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["imdb", "imdb", "100", "2", "13", "68.4", "%"] in rows
    assert ["ag", "ag_news", "48", "4", "6", "31.6", "%"] in rows


def test_a_plan_before_preparation() -> None:
    (stage,) = plan_of("proportional", {}).stages
    assert (stage.steps.steps_per_epoch, [each.share for each in stage.data_sets]) == (None, [None, None])
    plan = plan_of({"imdb": 1, "ag": 3}, {})
    assert [each.share for each in plan.stages[0].data_sets] == [0.25, 0.75]
    text = page(plan)
    assert "by weight: imdb 1, ag 3" in text
    assert ["ag", "ag_news", "-", "-", "-", "75.0", "%"] in [line.split() for line in text.splitlines()]


def test_max_steps_count_over_all_data_sets() -> None:
    stage = config("equal").stages["multitask"]
    assert isinstance(stage, MultitaskStage)
    steps = count_steps(stage, 148, {"imdb": 100, "ag": 48})
    assert (steps.steps_per_epoch, steps.total_steps, steps.warmup_steps) == (19, 38, 3)


def test_paths_of_all_data_sets_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(
        "name: x\nmodel: bert-base-uncased\nstages:\n  multitask:\n    epochs: 1\n"
        "    data_sets: {a: {dataset: imdb, path: here}, b: {dataset: trec, path: /there}}\n"
    )
    stage = absolute(load_config(Path("x.yaml"))).config.stages["multitask"]
    assert isinstance(stage, MultitaskStage)
    assert [data.path for data in stage.data_sets.values()] == [str(tmp_path / "here"), "/there"]


def test_paths_of_all_corpora_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(
        "name: x\nmodel: bert-base-uncased\ndata: {dataset: trec, path: top}\nstages:\n  pretrain:\n    max_steps: 1\n"
        "    corpora: [{dataset: imdb, path: here}, {dataset: trec}, {dataset: text, path: /there}]\n"
        "  finetune: {epochs: 1, data: {dataset: trec, path: own}}\n"
    )
    config = absolute(load_config(Path("x.yaml"))).config
    assert [data.path for data in config.stage_corpora("pretrain")] == [str(tmp_path / "here"), None, "/there"]
    assert [data.path for data in (config.data, config.stage_data("finetune")) if data] == [
        str(tmp_path / "top"),
        str(tmp_path / "own"),
    ]


def progress(step: int, losses: dict[str, float | None]) -> dict[str, Any]:
    record = {"type": "progress", "rank": 0, "stage": "multitask", "step": step, "loss": 1.0, "losses": losses}
    return {"type": "rank", "node": 0, "record": record}


def test_the_screen_keeps_the_last_loss_of_every_data_set() -> None:
    state = RunView(Header("many"), 0.0, stages=(StageView("multitask"),))
    state = reduce(state, progress(1, {"imdb": 0.7, "ag": None}), 1.0)
    assert metrics.progress_pairs(state.stages[0].progress) == [("loss", "1.0000"), ("imdb", "0.7000")]
    state = reduce(state, progress(2, {"imdb": None, "ag": 1.5}), 2.0)
    shown = metrics.progress_pairs(state.stages[0].progress)
    assert shown == [("loss", "1.0000"), ("imdb", "0.7000"), ("ag", "1.5000")]


def test_results_show_the_mean_and_each_data_set(tmp_path: Path) -> None:
    scores = {"accuracy": 0.75, "macro_f1": 0.5, "loss": 0.25}
    parts = {"imdb": {**scores, "accuracy": 0.9}, "ag": {**scores, "accuracy": 0.6}}
    (tmp_path / "multitask").mkdir()
    (tmp_path / "multitask" / "eval.json").write_text(json.dumps({**scores, "data_sets": parts}))
    rows = result_rows(read_results(tmp_path, ("multitask",)))
    assert [row[:3] for row in rows] == [
        ("multitask", "test accuracy", "75.00 %"),
        ("", "test macro-F1", "50.00 %"),
        ("", "test loss", "0.2500"),
        ("", "test imdb accuracy", "90.00 %"),
        ("", "test ag accuracy", "60.00 %"),
    ]
