"""Keys of further pre-training: corpora in YAML, what goes together, and the way through the resolved file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from configs.loader import dump_resolved, load_config, load_resolved
from configs.schema import PretrainStage

TWO = [{"dataset": "imdb", "weight": 0.5, "splits": ["unsup"]}, {"dataset": "text", "path": "a: b, {c}"}]
READY = {"dataset": "bert_instances", "path": "x.json"}


def write(tmp_path: Path, stage: dict[str, Any], data: dict[str, Any] | None = None) -> Path:
    values = {"name": "x", "model": "m", "data": data or {"dataset": "imdb"}}
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({**values, "stages": {"pretrain": {"max_steps": 1, **stage}}}, sort_keys=False))
    return path


def test_corpora_survive_the_resolved_file(tmp_path: Path) -> None:
    resolved = load_config(write(tmp_path, {"corpora": TWO, "validation": 10}))
    (tmp_path / "resolved.yaml").write_text(dump_resolved(resolved))
    assert load_resolved(tmp_path / "resolved.yaml") == resolved.config
    corpora = resolved.config.stage_corpora("pretrain")
    assert [(each.dataset, each.path, each.weight, each.splits) for each in corpora] == [
        ("imdb", None, 0.5, ("unsup",)),
        ("text", "a: b, {c}", 1.0, ("train", "unsup")),
    ]


def test_without_corpora_the_data_section_is_the_corpus(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, {"splits": ["train"]}, {"dataset": "trec", "validation": 0.3})).config
    (corpus,) = config.stage_corpora("pretrain")
    assert (corpus.dataset, corpus.splits, corpus.weight) == ("trec", ("train",), 1.0)


@pytest.mark.parametrize(
    ("stage", "data", "message"),
    [
        ({"packing": True}, None, "pretrain.packing: a packed sequence has no second part to predict; set nsp: false"),
        (
            {"packing": True, "nsp": False, "short_sequence_probability": 0.2},
            None,
            "pretrain.short_sequence_probability: has no effect: packing fills every sequence; leave it out",
        ),
        ({"nsp": False, "single_sentences": "alone"}, None, "pretrain.single_sentences: has no effect: without nsp"),
        ({"evaluate_every": 5}, None, "pretrain.evaluate_every: has no effect: no documents are held out"),
        (
            {"corpora": TWO, "splits": ["train"]},
            None,
            "pretrain.splits: has no effect: each of the corpora has its own",
        ),
        ({"corpora": TWO, "data": {"dataset": "trec"}}, None, "pretrain.corpora: give corpora or data, not both"),
        (
            {"corpora": [READY, TWO[0]]},
            None,
            "pretrain.corpora: 'bert_instances' is masked already and cannot be mixed",
        ),
        ({"corpora": [READY], "whole_word": True}, None, "pretrain.whole_word: has no effect: the instances"),
        ({"data": READY, "dupe_factor": 2}, None, "pretrain.dupe_factor: has no effect: the instances"),
        ({"mask_probability": 0.2}, READY, "pretrain.mask_probability: has no effect: the instances"),
        ({"leave_out_tests": True}, READY, "pretrain.leave_out_tests: has no effect: the instances"),
        (
            {"corpora": [{"dataset": "trec", "validation": 5}]},
            None,
            "corpora[0].validation: a corpus has no validation",
        ),
        ({"corpora": [{"dataset": "trec", "splits": []}]}, None, "corpora[0].splits: name at least one split"),
        ({"corpora": [{"dataset": "trec", "weight": 0}]}, None, "corpora[0].weight: 0; allowed: a number above 0"),
        (
            {"corpora": [{"dataset": "trec", "wieght": 2}]},
            None,
            "corpora[0].wieght: unknown key; did you mean 'weight'?",
        ),
        ({"corpora": [{"dataset": "text"}]}, None, "corpora[0].path: missing; dataset 'text' needs the file"),
        ({"corpora": "trec"}, None, "pretrain.corpora: 'trec' is text; allowed: a list of sections"),
        (
            {},
            {"dataset": "bert_instances"},
            "data.path: missing; dataset 'bert_instances' needs the file or folder to read",
        ),
        ({"splits": []}, None, "pretrain.splits: name at least one split"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, stage: dict[str, Any], data: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, stage, data))
    assert message in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_the_defaults_are_googles_recipe() -> None:
    stage = PretrainStage(task="pretrain", max_steps=1)
    keys = (
        "corpora",
        "leave_out_tests",
        "validation",
        "save_model_every",
        "single_sentences",
        "packing",
        "dupe_factor",
    )
    assert [getattr(stage, key) for key in keys] == [(), False, 0.0, None, "random_next", False, None]
