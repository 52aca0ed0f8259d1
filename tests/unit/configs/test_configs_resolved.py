"""dump_resolved and load_resolved: the identity for random valid configurations, and what the text looks like."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.loader import Resolved, dump_resolved, load_config, load_resolved
from configs.schema import Config

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
TRICKY = st.sampled_from(
    ["null", "no", "12:30", "1e-4", "~", "'x'", '"', "a: b", " #c ", "- a", "{", "\\", "\u2028", "\ufeff", "😀"]
)
ANY_TEXT = TEXT | TRICKY
COUNT = st.integers(1, 10**9)
PART = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, 1e6, exclude_min=True)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def section(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


DATA = section(
    {"dataset": st.sampled_from(["csv", "tsv", "jsonl"]), "path": ANY_TEXT},
    {
        "validation": PART | COUNT,
        "subset": section({}, {"train": maybe(COUNT), "test": maybe(COUNT)}),
        "files": section({}, {"train": maybe(ANY_TEXT), "unsup": maybe(ANY_TEXT)}),
        "columns": section({}, {"text": st.integers(0, 9), "label": TEXT.map(lambda text: f"l{text}")}),
        "encoding": st.sampled_from(["utf-8", "latin-1", "gb18030"]),
    },
)
STAGE = {
    "data": maybe(DATA),
    "batch": COUNT,
    "micro_batch": maybe(COUNT),
    "lr": POSITIVE,
    "schedule": st.sampled_from(["linear", "cosine", "constant", "poly"]),
    "warmup": PART | st.integers(0, 9),
    "weight_decay": st.floats(0, 10) | st.integers(0, 3),
    "adam_eps": POSITIVE,
    "dropout": maybe(PART),
    "ema": maybe(PART),
}
LENGTH = st.sampled_from([{"epochs": 3}, {"max_steps": 1000}])
PRETRAIN = section(
    {"task": st.just("pretrain")},
    {**STAGE, "nsp": st.booleans(), "splits": st.sampled_from([["train"], ["unsup", "train"]])},
)
FINETUNE = section(
    {"task": st.just("finetune")},
    {
        **STAGE,
        "truncation": st.sampled_from([{}, {"head": 0}, {"tail": 125}]),
        "layers": st.sampled_from(["pooler", "all"]) | st.lists(st.integers(0, 23), min_size=1, unique=True),
        "evaluate_every": st.just("epoch") | COUNT,
        "early_stopping": maybe(section({"patience": COUNT}, {"min_delta": st.floats(0, 1)})),
    },
)
STAGE_NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("model", "attempts", "errors")
)
ENV = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), ANY_TEXT | st.just("a\nb"), max_size=3
)
CONFIGS = section(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        "model": ANY_TEXT,
        "data": DATA,
        "stages": st.dictionaries(
            STAGE_NAME,
            st.builds(lambda stage, length: {**stage, **length}, PRETRAIN | FINETUNE, LENGTH),
            min_size=1,
            max_size=4,
        ),
    },
    {
        "seed": st.integers(0, 2**31 - 1),
        "amp": section({}, {"level": st.sampled_from(["off", "O1"])}),
        "launch": section({}, {"env": ENV, "threads_per_rank": COUNT | st.just("auto")}),
    },
)


def without_conflicts(values: dict[str, Any]) -> dict[str, Any]:
    """Early stopping needs validation rows; everything else that is drawn goes together."""
    for stage in values["stages"].values():
        data = stage.get("data") or values["data"]
        if data.get("validation") == 0:
            stage.pop("early_stopping", None)
    return values


@settings(max_examples=80, deadline=None)
@given(values=CONFIGS.map(without_conflicts), source=ANY_TEXT)
def test_dump_then_load_is_the_identity(values: dict[str, Any], source: str) -> None:
    config = Config.model_validate(values)
    text = dump_resolved(Resolved(config, {"seed": "command line", "model": "configs/x.yaml:3"}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        loaded = load_resolved(path)
    assert loaded == config
    assert repr(loaded) == repr(config)
    assert list(loaded.stages) == list(config.stages)


def test_every_value_stands_with_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    Path("x.yaml").write_text("name: a\nmodel: b\ndata: {dataset: trec}\nstages:\n  finetune:\n    epochs: 4\n")
    resolved = load_config(Path("x.yaml"), ["finetune.lr=5e-05", "launch.env.A=1"])
    lines = dump_resolved(resolved).splitlines()
    assert lines[:6] == [
        "# The resolved configuration of run a: every value and where it came from.",
        'name: "a"  # x.yaml:1',
        'model: "b"  # x.yaml:2',
        "seed: 42  # default",
        "data:",
        '  dataset: "trec"  # x.yaml:3',
    ]
    assert "    epochs: 4  # x.yaml:6" in lines
    assert "    lr: 5e-05  # command line" in lines
    assert '    task: "finetune"  # default' in lines
    assert '    A: "1"  # command line' in lines
    assert all("  # " in line or line.endswith(":") for line in lines[1:])
    assert set(resolved.provenance.values()) == {
        "x.yaml:1",
        "x.yaml:2",
        "x.yaml:3",
        "x.yaml:6",
        "command line",
        "default",
    }


def test_environment_plays_no_part_when_reading_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    source = tmp_path / "x.yaml"
    source.write_text("name: a\nmodel: b\ndata: {dataset: trec}\nstages: {finetune: {epochs: 4}}\n")
    path = tmp_path / "config.yaml"
    path.write_text(dump_resolved(load_config(source)))
    monkeypatch.setenv("BERT4DOC_OVERRIDES", "seed=7")
    assert load_resolved(path).seed == 42
    assert load_config(source).config.seed == 7


def test_damaged_file_is_reported_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: a\nmodel: b\nmodel: c\n")
    with pytest.raises(ConfigError) as caught:
        load_resolved(path)
    assert f"{path}:3: model: this key stands twice" in caught.value.message
    assert f"{path}:1: stages: missing" in caught.value.message


def test_odd_file_name_cannot_break_out_of_a_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERT4DOC_OVERRIDES", raising=False)
    source = tmp_path / "x\nseed: 9 # .yaml"
    source.write_text("name: a\nmodel: b\ndata: {dataset: trec}\nstages: {finetune: {epochs: 4}}\n")
    path = tmp_path / "config.yaml"
    path.write_text(dump_resolved(load_config(source)))
    assert load_resolved(path).seed == 42


def test_floats_keep_every_bit(tmp_path: Path) -> None:
    stages = {"finetune": {"task": "finetune", "epochs": 1, "lr": math.nextafter(2e-5, 1), "adam_eps": 5e-324}}
    config = Config.model_validate({"name": "a", "model": "b", "data": {"dataset": "trec"}, "stages": stages})
    path = tmp_path / "config.yaml"
    path.write_text(dump_resolved(Resolved(config, {})))
    assert load_resolved(path) == config
