"""Multi-task stages: what goes together, how batches are shared out (by hand), and where later stages start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import configs
from configs.errors import ConfigError
from configs.loader import dump_resolved, load_config, load_resolved
from configs.mixing import batches_per_epoch, mixing_shares
from configs.schema import MultitaskStage

YAML = """\
name: x
model: bert-base-uncased
stages:
  multitask:
    data_sets:
      imdb: {dataset: imdb}
      ag: {dataset: ag_news}
    epochs: 2
  imdb: {task: finetune, data: {dataset: imdb}, epochs: 1}
"""
EXAMPLES = {"a": 100, "b": 41, "c": 7}


def multitask(mixing: Any = "proportional") -> MultitaskStage:
    data_sets = {name: {"dataset": "trec"} for name in EXAMPLES}
    values = {"task": "multitask", "data_sets": data_sets, "epochs": 1, "batch": 8, "mixing": mixing}
    return MultitaskStage.model_validate(values)


@pytest.mark.parametrize(
    ("mixing", "expected"),
    [
        ("proportional", [13, 6, 1]),  # ceil of 12.5, 5.125 and 0.875: 20 steps
        ("equal", [7, 7, 6]),  # 6.67 each: 6 each, and the two that are left to the first ones
        ({"c": 1, "a": 2, "b": 1}, [10, 5, 5]),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, [2, 4, 14]),
        ({"a": 1, "b": 1, "c": 4}, [4, 3, 13]),  # 3.33, 3.33 and 13.33: equal remainders, so one more to the first
        ({"a": 1000, "b": 1, "c": 1}, [20, 0, 0]),
    ],
)
def test_batches_per_epoch(mixing: Any, expected: list[int]) -> None:
    found = batches_per_epoch(multitask(mixing), EXAMPLES)
    assert list(found.items()) == list(zip("abc", expected, strict=True))
    assert sum(found.values()) == 20


def test_shares_before_the_sizes_are_known() -> None:
    assert mixing_shares(multitask(), None) == {}
    assert list(map(float, mixing_shares(multitask({"a": 1, "b": 2, "c": 1}), None).values())) == [0.25, 0.5, 0.25]
    assert [round(float(share), 3) for share in mixing_shares(multitask("equal"), None).values()] == [0.333] * 3
    assert list(map(float, mixing_shares(multitask(), EXAMPLES).values())) == [0.65, 0.3, 0.05]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    Path("x.yaml").write_text(YAML)
    return Path("x.yaml")


def test_a_config_without_top_level_data_is_read_back(path: Path) -> None:
    arguments = ["multitask.mixing={imdb: 1, ag: 2.5}", "multitask.mixing.imdb=3", "multitask.data_sets.ag.path=a b"]
    resolved = load_config(path, arguments)
    stage = resolved.config.stages["multitask"]
    assert isinstance(stage, MultitaskStage)
    assert stage.mixing == {"imdb": 3.0, "ag": 2.5}
    assert (list(stage.data_sets), stage.data_sets["ag"].path) == (["imdb", "ag"], "a b")
    assert resolved.provenance["stages.multitask.data_sets.imdb.dataset"] == "x.yaml:6"
    (path.parent / "resolved.yaml").write_text(dump_resolved(resolved))
    assert load_resolved(path.parent / "resolved.yaml") == resolved.config


def test_where_stages_start_by_default(path: Path) -> None:
    more = [
        "stages.pretrain={data: {dataset: imdb}, epochs: 1}",
        "stages.last={task: finetune, data: {dataset: trec}, epochs: 1}",
    ]
    config = load_config(path, more).config
    assert list(config.stages) == ["multitask", "imdb", "pretrain", "last"]
    assert [config.stage_init(name) for name in config.stages] == ["model", "multitask", "model", "pretrain"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["multitask.mixing=eqal"], "stages.multitask.mixing: 'eqal'; allowed: one of proportional, equal, or a section"),
        (["multitask.mixing={imdb: 1, agg: 2}"], "stages.multitask.mixing: no weight for ag; no data set agg; give one"),
        (["multitask.mixing={imdb: 1, ag: 0}"], "stages.multitask.mixing.ag: 0; a weight must be above 0"),
        (["multitask.data_sets={a: {dataset: imdb}}"], "stages.multitask.data_sets: at least 2 data sets are needed"),
        (["multitask.data_sets=null"], "stages.multitask.data_sets: empty (null); allowed: a section"),
        (["multitask.data_sets.a b=1"], "stages.multitask.data_sets.a b: not allowed as a name; needed: a name"),
        (["multitask.data_sets.ag.datset=trec"], "stages.multitask.data_sets.ag.datset: unknown key; did you mean 'dataset'"),
        (["multitask.data_sets.ag={dataset: text, path: x}"], "stages.multitask.data_sets.ag.dataset: dataset 'text' has no labels"),
        (["multitask.data={dataset: trec}"], "stages.multitask.data: unknown key; 'data' is only for stages with task: pretrain or"),
        (
            [
                "multitask.early_stopping={patience: 1}",
                "multitask.data_sets.ag.validation=0",
                "multitask.data_sets.imdb.validation=0",
            ],
            "stages.multitask.early_stopping: needs validation rows",
        ),
        (["imdb.data=null"], "data: missing, and stage 'imdb' has no data of its own; give data or stages.imdb.data"),
        (["imdb.init_head=trec"], "stages.imdb.init_head: 'trec' is no data set of stage 'multitask'; allowed: imdb, ag"),
        (["imdb.init_head=ag", "imdb.init=model"], "stages.imdb.init_head: stage 'imdb' starts from 'model', which is no"),
        (["imdb.init_head=ag", "imdb.layers=[1]"], "stages.imdb.init_head: the classifiers of stage 'multitask' see other"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, arguments)
    assert message in caught.value.message


def test_validation_rows_of_one_data_set_are_enough_for_early_stopping(path: Path) -> None:
    load_config(path, ["multitask.early_stopping={patience: 1}", "multitask.data_sets.ag.validation=0"])


def test_overrides_of_a_stage_without_a_task_of_its_own_name(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["stages.many={data_sets: {a: {dataset: trec}, b: {dataset: imdb}}, epochs: 1}"])
    (line,) = caught.value.message.splitlines()
    assert "stages.many.task: missing" in line
    assert "needs task: pretrain, finetune or multitask" in line


def test_the_readmes_example_loads(path: Path) -> None:
    readme = (Path(configs.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Several data sets at once")[2].partition("\n## ")[0]
    example = section.partition("    name: ")[2].partition("\n\nAn epoch")[0]
    path.write_text("name: " + example.replace("\n    ", "\n"))
    config = load_config(path).config
    assert [config.stage_init(name) for name in config.stages] == ["model", "multitask", "multitask"]
