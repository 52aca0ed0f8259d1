"""The YAMLs that come with the project: they load, their headers are true, and the editor's schema is current."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import configs
from configs import json_schema
from configs.loader import load_config
from configs.schema import DATASETS, Config, DataConfig, FinetuneStage, PretrainStage

FOLDER = Path(configs.__file__).parent
ROOT = FOLDER.parent
SHIPPED = sorted(path for path in FOLDER.glob("*.yaml") if "\nstages:" in path.read_text(encoding="utf-8"))
HEADER_KEYS = ("needs:", "run:", "expected:")


def header(path: Path) -> list[str]:
    """The comment lines at the top, without their '#'."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return [line.removeprefix("#").strip() for line in top]


def commands(path: Path) -> list[list[str]]:
    """The commands of a header as argument lists; a command goes on while the next line continues it."""
    text = "\n".join(header(path))
    found = re.findall(r"\./run\.sh (.*(?:\n(?!.*: |\().*=.*)*)", text)
    return [shlex.split(command.replace("\n", " ")) for command in found]


def test_every_data_set_of_the_paper_is_there() -> None:
    papers = {"trec", "imdb", "ag_news", "yahoo", "dbpedia", "yelp_polarity", "yelp_full", "sogou"}
    assert {path.stem for path in SHIPPED} >= {"quickstart", *papers}
    for name in papers:
        data = load_config(FOLDER / f"{name}.yaml").config.data
        assert data is not None
        assert data.dataset == name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_loads_and_is_named_after_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    assert load_config(path).config.name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_header_says_what_it_needs_and_how_to_run_it(path: Path) -> None:
    lines = header(path)
    assert lines[0] == "yaml-language-server: $schema=./schema.json"
    for key in HEADER_KEYS:
        assert sum(line.startswith(key) for line in lines) == 1, key
    assert all(len(line) <= 120 for line in path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_commands_of_the_header_are_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    monkeypatch.chdir(ROOT)
    trains = [command for command in commands(path) if command[0] == "train"]
    assert trains
    for _, file, *rest in trains:
        overrides = [argument for argument in rest if "=" in argument]
        assert Path(file).resolve() == path
        load_config(Path(file), overrides)


def test_header_commands_are_read_with_their_continuation_lines() -> None:
    small = [command for command in commands(FOLDER / "trec.yaml") if "trec-small" in command]
    assert len(small) == 1
    assert small[0][-1] == "finetune.batch=32"


def stage(name: str, stage_name: str) -> Any:
    return load_config(FOLDER / f"{name}.yaml").config.stages[stage_name]


PAPERS = ["imdb", "ag_news", "yahoo", "dbpedia", "yelp_polarity", "yelp_full", "sogou"]


@pytest.mark.parametrize("name", PAPERS)
def test_further_pretraining_is_the_papers(name: str) -> None:
    stage_ = stage(name, "pretrain")
    assert isinstance(stage_, PretrainStage)
    values = (stage_.max_steps, stage_.warmup, stage_.batch, stage_.lr, stage_.max_length, stage_.weight_decay)
    assert values == (100_000, 10_000, 32, 0.00005, 128, 0.01)
    assert (stage_.clip, stage_.mask_probability, stage_.max_predictions, stage_.nsp) == (1.0, 0.15, 20, True)


@pytest.mark.parametrize("name", [*PAPERS, "trec"])
def test_fine_tuning_is_the_papers(name: str) -> None:
    config = load_config(FOLDER / f"{name}.yaml").config
    stage_ = stage(name, "finetune")
    assert isinstance(stage_, FinetuneStage)
    assert (stage_.batch, stage_.lr, stage_.warmup, stage_.epochs, stage_.layer_decay) == (24, 0.00002, 0.1, 4, 0.95)
    assert (stage_.adam_beta1, stage_.adam_beta2, stage_.adam_eps, stage_.weight_decay) == (0.9, 0.999, 1e-6, 0.01)
    model = "bert-base-chinese" if name == "sogou" else "bert-base-uncased"
    assert (config.model, config.stage_init("finetune")) == (model, "pretrain")


@pytest.mark.parametrize("name", ["imdb", "dbpedia", "yelp_polarity", "yelp_full", "sogou"])
def test_long_texts_keep_128_and_382_tokens(name: str) -> None:
    stage_ = stage(name, "finetune")
    assert stage_.truncation.head == 128
    assert stage_.max_length - 2 - stage_.truncation.head == 382


def test_quickstart_compares_with_and_without_further_pretraining() -> None:
    config = load_config(FOLDER / "quickstart.yaml").config
    assert list(config.stages) == ["baseline", "pretrain", "finetune"]
    assert [config.stage_init(name) for name in config.stages] == ["model", "model", "pretrain"]
    assert (config.stage_data("finetune").dataset, config.model) == ("python_docs", "all-minilm-l6-v2")


def test_json_schema_is_current() -> None:
    assert json_schema.FILE.read_text(encoding="utf-8") == json_schema.render(), (
        f"configs/schema.json is not what the schema says; refresh it: {json_schema.REFRESH}"
    )


def test_json_schema_explains_every_key() -> None:
    schema = json.loads(json_schema.FILE.read_text(encoding="utf-8"))
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value.get("description"), key
    stage_ = schema["$defs"]["FinetuneStage"]
    assert stage_["required"] == []
    assert stage_["properties"]["lr"] == {
        "default": 2e-05, "exclusiveMinimum": 0.0, "type": "number", "description": "Peak learning rate.",
    }  # fmt: skip
    assert schema["properties"]["stages"]["additionalProperties"]["required"] == ["task"]


def test_datasets_list_is_the_schemas() -> None:
    words = DataConfig.model_json_schema()["properties"]["dataset"]["enum"]
    assert tuple(words) == DATASETS
    assert set(Config.model_fields) == {"name", "model", "seed", "data", "stages", "amp", "train", "launch"}


def test_loading_imports_nothing_heavy() -> None:
    script = (
        "import sys; from pathlib import Path; from configs.loader import load_config; "
        "load_config(Path('configs/imdb.yaml'), ['finetune.lr=1e-4']); print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"paddle", "paddlenlp", "numpy", "difflib", "rich", "typer", "launcher", "cluster", "trainers"}
    assert not loaded & heavy
