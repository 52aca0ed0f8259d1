"""Every YAML that comes with the project is prepared, from a small raw data set of the real form."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import configs
from configs.loader import load_config
from tests.unit.data.samples import MAKERS, SPLITS
from tests.unit.data.test_model_store import make_model
from trainers.data.store import open_corpus, open_texts
from trainers.prepare import Reporter, prepare

FOLDER = Path(configs.__file__).parent
SHIPPED = sorted(path for path in FOLDER.glob("*.yaml") if "\nstages:" in path.read_text(encoding="utf-8"))
CLASSES = {
    "trec": 6,
    "imdb": 2,
    "ag_news": 4,
    "yahoo": 10,
    "dbpedia": 14,
    "yelp_polarity": 2,
    "yelp_full": 5,
    "sogou": 6,
}


def dataset_of(path: Path) -> str:
    """The data set of a shipped YAML."""
    data = load_config(path).config.data
    assert data is not None
    return data.dataset


def run(path: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """The summary of preparing a shipped YAML with a small model and data in `folder`."""
    make_model(folder / "model", max_position_embeddings=512, num_hidden_layers=6)
    raw = folder / "raw"
    raw.mkdir()
    place = MAKERS[dataset_of(path)](raw)
    settings = (f"model={folder}/model", f"data.path={place}", *overrides)
    sink = io.StringIO()
    summary = prepare(load_config(path, settings).config, folder / "cache", Reporter(sink))
    for line in sink.getvalue().splitlines():
        assert json.loads(line).get("level") != "warning", line
    return summary


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_can_be_prepared(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    summary = run(path, tmp_path)
    config = load_config(path).config
    assert set(summary["stages"]) == set(config.stages)
    for name, facts in summary["stages"].items():
        if facts["task"] == "pretrain":
            assert open_corpus(Path(facts["corpora"][0]["entry"])).num_documents == facts["num_documents"] > 10
            continue
        train = open_texts(Path(facts["splits"]["train"]))
        assert train.has_pairs == (dataset_of(path) == "yahoo")
        assert len(facts["label_counts"]) == CLASSES.get(path.stem, 8)
        assert facts["num_examples"] + facts["num_validation"] == len(train)
        assert facts["num_validation"] > 0, name
        assert facts["num_test"] == len(open_texts(Path(facts["splits"]["test"]))) > 0
        assert facts["lengths"]["mean"] > 5


def test_the_pinyin_version_of_sogou_is_prepared_from_its_archive(tmp_path: Path) -> None:
    (tmp_path / "zhang").mkdir()
    archive = MAKERS["sogou_pinyin"](tmp_path / "zhang")
    summary = run(FOLDER / "sogou.yaml", tmp_path, "data.dataset=sogou_pinyin", f"data.path={archive}")
    finetune = summary["stages"]["finetune"]
    assert finetune["label_names"] == ["sports", "finance", "entertainment", "automobile", "technology"]
    assert finetune["num_test"] == SPLITS["test"] * 5 // 2
