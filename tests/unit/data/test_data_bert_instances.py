"""Ready instances: the Paddle port's JSON and JSON lines, read in bounded memory, every field checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, PretrainStage
from tests.unit.data.helpers import make_vocabulary, no_fetch
from trainers.data.dataset_cache import DatasetCache
from trainers.data.pretraining import open_sources
from trainers.data.readers import bert_instances
from trainers.data.readers.base import ReadLog
from trainers.data.store import open_instances
from trainers.data.tokenize import Tokenizer

LENGTH, SLOTS = 16, 4


def instance(number: int, cls: int, sep: int) -> dict[str, Any]:
    """One of two parts with 1 to 3 predictions, padded as the port pads: made without the code under test."""
    rng = np.random.default_rng(number)
    first, second = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    words = rng.integers(10, 30, first + second).tolist()
    ids = [cls, *words[:first], sep, *words[first:], sep]
    positions = sorted(rng.choice(np.arange(1, first + 1), int(rng.integers(1, min(3, first) + 1)), False).tolist())
    labels = rng.integers(10, 30, len(positions)).tolist()
    empty, slots = LENGTH - len(ids), SLOTS - len(positions)
    return {
        "input_ids": ids + [0] * empty,
        "input_mask": [1] * len(ids) + [0] * empty,
        "segment_ids": [0] * (first + 2) + [1] * (second + 1) + [0] * empty,
        "masked_lm_positions": positions + [0] * slots,
        "masked_lm_ids": labels + [0] * slots,
        "next_sentence_labels": number % 2,
    }


@pytest.fixture
def cache(tmp_path: Path) -> DatasetCache:
    tokenizer = Tokenizer(make_vocabulary(tmp_path), lower_case=True)
    return DatasetCache(tmp_path / "tokens", tokenizer, no_fetch, lambda *progress: None, lambda text: None)


@pytest.fixture
def made(tmp_path: Path) -> list[dict[str, Any]]:
    vocabulary = make_vocabulary(tmp_path)
    return [instance(number, vocabulary.cls_id, vocabulary.sep_id) for number in range(50)]


def write(path: Path, content: str | list[dict[str, Any]]) -> DataConfig:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return DataConfig(dataset="bert_instances", path=str(path))


LAYOUTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "list": json.dumps,
    "indented": lambda made: json.dumps(made, indent=2),
    "lines": lambda made: "\n".join(map(json.dumps, made)) + "\n\n",
    "marked": lambda made: "\ufeff " + json.dumps(made) + "\n",
    "nested label, more keys": lambda made: json.dumps(
        [{**each, "next_sentence_labels": [each["next_sentence_labels"]], "masked_lm_weights": []} for each in made]
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [7, 1000, 1 << 20])
def test_instances_are_used_as_they_are(
    tmp_path: Path,
    cache: DatasetCache,
    made: list[dict[str, Any]],
    layout: str,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bert_instances, "CHUNK_BYTES", chunk)
    entry = cache.instances(write(tmp_path / "all.json", LAYOUTS[layout](made)))
    assert len(open_instances(entry)) == 50
    stage = PretrainStage(task="pretrain", max_steps=1, max_length=16, validation=0.2)
    facts: Any = {"title": "", "kind": "instances", "entry": str(entry), "weight": 1.0, "documents": 50, "left_out": 0}
    sources = open_sources("pretrain", stage, [facts], make_vocabulary(tmp_path), 1)
    assert sources.held_out is not None
    assert sources.num_held_out == 10
    seen = []
    for epoch in (sources.training.epoch(3), sources.held_out.epoch(0)):
        items = np.arange(len(epoch.lengths))[::-1].copy()
        masked = epoch.masked(items)
        assert np.diff(masked.offsets).tolist() == epoch.lengths[items].tolist()
        for place, (start, end) in enumerate(zip(masked.offsets[:-1], masked.offsets[1:], strict=True)):
            own = (masked.positions >= start) & (masked.positions < end)
            seen.append(
                (
                    masked.ids[start:end].tolist(),
                    masked.types[start:end].tolist(),
                    (masked.positions[own] - start).tolist(),
                    masked.labels[own].tolist(),
                    int(masked.next_labels[place]),
                )
            )
    expected = []
    for each in made:
        length, num = sum(each["input_mask"]), sum(position > 0 for position in each["masked_lm_positions"])
        expected.append(
            (
                each["input_ids"][:length],
                each["segment_ids"][:length],
                each["masked_lm_positions"][:num],
                each["masked_lm_ids"][:num],
                each["next_sentence_labels"],
            )
        )
    assert sorted(seen) == sorted(expected), "padded slots do not count"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [9999] * 16}, "input_ids: 9999; allowed: 0 to "),
        ({"input_ids": [7] * 16}, "does not begin with \\[CLS\\]"),
        ({"input_ids": [2] * 15}, "different lengths \\(input_ids 15, input_mask 16, segment_ids 16\\)"),
        ({"input_ids": [2.5] * 16}, "input_ids: .*a list of at most 4096 whole numbers"),
        ({"input_ids": [2**70] * 16}, "more than 63 bits"),
        ({"input_mask": [1, 0] * 8}, "input_mask is not ones followed by zeros"),
        ({"segment_ids": [0] * 15 + [2]}, "segment_ids: 2"),
        ({"masked_lm_positions": [15, 0, 0, 0]}, "masked_lm_positions: 15; allowed: 0 to "),
        ({"masked_lm_positions": [1, 1, 0, 0], "masked_lm_ids": [7, 7, 0, 0]}, "or one twice"),
        ({"masked_lm_positions": [0, 0, 0, 0], "masked_lm_ids": [0, 0, 0, 0]}, "names no position"),
        ({"masked_lm_positions": [0, 0, 0, 0], "masked_lm_ids": [7, 0, 0, 0]}, "predicts \\[CLS\\] at position 0"),
        ({"masked_lm_ids": [-1, 0, 0, 0]}, "masked_lm_ids: -1"),
        ({"next_sentence_labels": 2}, "next_sentence_labels: 2; allowed: 0 \\(follows\\) or 1"),
        ({"next_sentence_labels": True}, "next_sentence_labels: True"),
    ],
)
def test_a_faulty_instance_is_named(
    tmp_path: Path, cache: DatasetCache, made: list[dict[str, Any]], change: dict[str, Any], message: str
) -> None:
    made[6] |= change
    with pytest.raises(DataError, match=f"all.json: instance 7: .*{message}") as caught:
        cache.instances(write(tmp_path / "all.json", made))
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{}", "instance 2: expected ',' or '\\]', found ''"),
        ("[{},]", "instance 2: missing behind the last comma"),
        ("[{} {}]", "instance 2: expected ','"),
        ("[] x", "text behind the end"),
        ("[", "the list has no end after 0 instances"),
        ('[{"input_ids": [1, 2', "instance 1: no valid JSON"),
        ("[1]", "instance 1: expected an object, found '1'"),
        ("some text", "instance 1: expected an object, found 's'"),
        ("[]", "no instance in the file"),
        ("[" * 100_000, "instance 1: expected an object"),
        ('[{"a": ' + "[" * 100_000, "instance 1: no valid JSON"),
    ],
)
def test_what_is_no_list_of_instances_is_refused(
    tmp_path: Path, cache: DatasetCache, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        cache.instances(write(tmp_path / "all.json", content))


def test_an_instance_without_end_is_not_read_into_memory(
    tmp_path: Path, cache: DatasetCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bert_instances, "CHUNK_BYTES", 100)
    monkeypatch.setattr(bert_instances, "MAX_INSTANCE_CHARACTERS", 1000)
    read: list[int] = []
    log = ReadLog(read.append)
    path = tmp_path / "endless.json"
    path.write_text('[{"input_ids": [' + "1, " * 100_000)
    with pytest.raises(DataError, match="instance 1: no valid JSON"):
        list(bert_instances.read_instances(path, make_vocabulary(tmp_path), log))
    assert sum(read) < 2000


def test_a_stage_that_is_too_short_is_refused(tmp_path: Path, cache: DatasetCache, made: list[dict[str, Any]]) -> None:
    entry = cache.instances(write(tmp_path / "all.json", made))
    longest = max(sum(each["input_mask"]) for each in made)
    stage = PretrainStage(task="pretrain", max_steps=1, max_length=longest - 1)
    facts: Any = {"title": "", "kind": "instances", "entry": str(entry), "weight": 1.0, "documents": 50, "left_out": 0}
    with pytest.raises(ConfigError, match=f"the longest instance has {longest} tokens"):
        open_sources("pretrain", stage, [facts], make_vocabulary(tmp_path), 1)
