"""Overrides: precedence, shorthands, how their text is read, provenance, and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.loader import Resolved, load_config

YAML = """\
name: a
model: b
data: {dataset: trec}
stages:
  pretrain: {max_steps: 100, warmup: 10}
  finetune:
    epochs: 4
    truncation: {head: 16}
  data: {task: finetune, epochs: 2}
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    Path("x.yaml").write_text(YAML)
    return Path("x.yaml")


def value(resolved: Resolved, key: str) -> object:
    here: object = resolved.config
    for part in key.split("."):
        here = here[part] if isinstance(here, dict) else getattr(here, part)
    return here


@pytest.mark.parametrize(
    ("argument", "key", "expected"),
    [
        ("stages.finetune.lr=1e-4", "stages.finetune.lr", 0.0001),
        ("finetune.lr=1e-4", "stages.finetune.lr", 0.0001),
        ("stages.finetune.layers=[1,2]", "stages.finetune.layers", (1, 2)),
        ("finetune.layers=all", "stages.finetune.layers", "all"),
        ("data.path=/some/path with spaces", "data.path", "/some/path with spaces"),
        ("data.path=123", "data.path", "123"),
        ("data.path=a: b #c [d", "data.path", "a: b #c [d"),
        ("data.path=a=b", "data.path", "a=b"),
        ("data.path='null'", "data.path", "null"),
        ("data.path=null", "data.path", None),
        ("name=2024", "name", "2024"),
        ("name=null", "name", "null"),
        ("name=1e-4", "name", "1e-4"),
        ("model=no", "model", "no"),
        ("launch.env.OMP_NUM_THREADS=4", "launch.env", {"OMP_NUM_THREADS": "4"}),
        ("launch.threads_per_rank=2", "launch.threads_per_rank", 2),
        ("launch.threads_per_rank=auto", "launch.threads_per_rank", "auto"),
        ("amp.level=off", "amp.level", "off"),
        ("train.log_samples=true", "train.log_samples", True),
        ("finetune.early_stopping.patience=3", "stages.finetune.early_stopping.patience", 3),
        ("finetune.truncation={tail: 3}", "stages.finetune.truncation.head", None),
        ("finetune.dropout=0", "stages.finetune.dropout", 0.0),
        ("pretrain.splits=[train]", "stages.pretrain.splits", ("train",)),
        ("data.validation=500", "data.validation", 500),
        ("stages.data.lr=3.0", "stages.data.lr", 3.0),
    ],
)
def test_value_and_provenance(path: Path, argument: str, key: str, expected: object) -> None:
    resolved = load_config(path, [argument])
    assert value(resolved, key) == expected
    assert type(value(resolved, key)) is type(expected)
    keys = [known for known in resolved.provenance if known == key or known.startswith(f"{key}.")]
    assert keys
    where = "default" if key.endswith("truncation.head") else "command line"
    assert {resolved.provenance[known] for known in keys} == {where}


def test_columns_take_names_and_numbers(path: Path) -> None:
    path.write_text(YAML.replace("{dataset: trec}", "{dataset: csv, path: x}"))
    columns = load_config(path, ["data.columns.text=1", "data.columns.label=01"]).config.stage_data("finetune").columns
    assert (columns.text, columns.label) == (1, "01")


def test_precedence_and_provenance(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT4DOC_OVERRIDES", "seed=1 'data.path=a b' finetune.batch=8")
    resolved = load_config(path, ["seed=2", "finetune.batch=9", "finetune.batch=10"], name="n")
    stage = resolved.config.stages["finetune"]
    assert (resolved.config.seed, resolved.config.stage_data("finetune").path, stage.batch, resolved.config.name) == (
        2,
        "a b",
        10,
        "n",
    )
    assert resolved.provenance["seed"] == "command line"
    assert resolved.provenance["name"] == "command line"
    assert resolved.provenance["data.path"] == "environment"
    assert resolved.provenance["stages.finetune.batch"] == "command line"
    assert resolved.provenance["stages.finetune.epochs"] == "x.yaml:7"
    assert resolved.provenance["stages.finetune.truncation.head"] == "x.yaml:8"
    assert resolved.provenance["stages.finetune.truncation.tail"] == "default"
    assert resolved.provenance["stages.finetune.task"] == "default"
    assert resolved.provenance["stages.data.task"] == "x.yaml:9"
    assert resolved.provenance["launch.env"] == "default"


def test_wildcard_sets_every_stage(path: Path) -> None:
    stages = load_config(path, ["stages.*.batch=7", "finetune.batch=8"]).config.stages
    assert [stage.batch for stage in stages.values()] == [7, 8, 7]
    assert [stage.lr for stage in load_config(path, ["*.lr=0.5"]).config.stages.values()] == [0.5] * 3


def test_null_removes_a_stage_and_a_mapping_adds_one(path: Path) -> None:
    arguments = ["stages.pretrain=null", "data=null", "stages.more={task: finetune, epochs: 1}"]
    arguments[1] = "stages.data=null"
    assert list(load_config(path, arguments).config.stages) == ["finetune", "more"]


def test_a_first_part_that_is_a_top_level_key_means_that(path: Path) -> None:
    assert load_config(path, ["data.validation=0.2"]).config.stage_data("finetune").validation == 0.2


def test_epochs_and_max_steps_replace_each_other_across_layers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = load_config(path, ["finetune.max_steps=5", "pretrain.epochs=1"]).config.stages
    assert (stages["finetune"].epochs, stages["finetune"].max_steps) == (None, 5)
    assert (stages["pretrain"].epochs, stages["pretrain"].max_steps) == (1, None)
    monkeypatch.setenv("BERT4DOC_OVERRIDES", "finetune.max_steps=5")
    assert load_config(path, ["finetune.epochs=6"]).config.stages["finetune"].epochs == 6
    with pytest.raises(ConfigError, match="not both"):
        load_config(path, ["finetune.epochs=6", "finetune.max_steps=5"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lr", "an override is written key=value, such as stages.finetune.lr=1e-4"),
        ("=3", "an override is written key=value, such as stages.finetune.lr=1e-4"),
        ("data.path=", "no value; data.path=null sets it to none"),
        ("data..path=1", "an empty part in the key; it is written like stages.finetune.lr"),
        ("lr=1", "lr: unknown key here; did you mean 'stages.pretrain.lr'?"),
        ("finetune.lrr=1", "stages.finetune.lrr: unknown key; did you mean 'lr'?"),
        ("finetune.lr=x", "stages.finetune.lr: 'x' is text; allowed: a number above 0"),
        ("finetune.lr=[1", "not valid YAML: a ',' or a closing bracket is missing"),
        ("finetune.lr=!!float 3", "tags are not allowed: tag:yaml.org,2002:float"),
        ("finetun.lr=1", "finetun: unknown key here; did you mean 'stages.finetune'?"),
        ("stages.finetun.lr=1",
         "there is no stage 'finetun'; stages: pretrain, finetune, data; did you mean 'finetune'?"),
        ("stages.finetun=null",
         "there is no stage 'finetun'; stages: pretrain, finetune, data; did you mean 'finetune'?"),
        ("data.path.x=1", "data.path is a single value, it has no key 'x'"),
        ("seed=null", "seed: empty (null); allowed: a whole number of at least 0 and below 2147483648"),
        ("data.dataset=tre",
         "data.dataset: 'tre'; allowed: one of trec, imdb, ag_news, yahoo, dbpedia, yelp_polarity, yelp_full, sogou, "
         "sogou_pinyin, python_docs, tsv, csv, jsonl, text, bert_instances; "
         "did you mean 'trec'?"),
        ("pretrain.max_steps=10", "stages.pretrain.warmup: 10 steps must be below max_steps 10"),
        ("stages.*.truncation.tail=1",
         "stages.pretrain.truncation: unknown key; 'truncation' is only for stages with task: finetune or multitask"),
        ("train={log_every: 1, log_every: 2}", "this key stands twice, on lines 1 and 1; keep one"),
    ],
)  # fmt: skip
def test_error_names_the_argument(path: Path, argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(path, [argument])
    assert f"command line: {argument}: {message}" in caught.value.message.splitlines()


@pytest.mark.parametrize("argument", ["data.path=a\nb", "data.path=\x1b[31m", "data.path=a\udcff", "na\x00me=a"])
def test_control_characters_and_foreign_bytes_are_refused(path: Path, argument: str) -> None:
    with pytest.raises(ConfigError, match="holds a control character, or bytes that are not UTF-8") as caught:
        load_config(path, [argument])
    assert caught.value.message.isprintable()


def test_errors_of_environment_and_command_line_stand_beside_those_of_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(YAML + "sed: 3\n")
    monkeypatch.setenv("BERT4DOC_OVERRIDES", "seeed=1")
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["seedd=2", "model="])
    assert caught.value.message.splitlines() == [
        "x.yaml:10: sed: unknown key; did you mean 'seed'?",
        "environment: seeed=1: seeed: unknown key; did you mean 'seed'?",
        "command line: model=: no value; model=null sets it to none",
        "command line: seedd=2: seedd: unknown key; did you mean 'seed'?",
    ]


def test_open_quote_in_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT4DOC_OVERRIDES", "data.path='a")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message == (
        "environment: BERT4DOC_OVERRIDES=data.path='a: no closing quotation; it is written key=value key2='a value'"
    )


@pytest.mark.parametrize("text", ["data: 5\nstages: 3\n", "data: [1]\nstages: {finetune: 3}\n", "seed: 1\n"])
@pytest.mark.parametrize("argument", ["data.path=x", "stages.*.lr=1", "finetune.lr=1", "stages.a.b=1", "stages.a=null"])
def test_overrides_of_a_broken_file_are_reported_not_crashed_on(path: Path, text: str, argument: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path, [argument])


def test_name_option_is_checked(path: Path) -> None:
    with pytest.raises(ConfigError, match="command line: name=a b: name: 'a b' is not allowed"):
        load_config(path, name="a b")
