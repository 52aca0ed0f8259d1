"""The comparison of the alignment by hand-made differences, the Paddle port's saved values, and the independence of the reference."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from configs.errors import DataError
from configs.schema import StageBase

pytest.importorskip("paddle", reason="needs Paddle")

from trainers.align import fixtures, settings
from trainers.align.fixtures import RATE_ROW, RATES, TOKEN_ROW, TOKENS, compare_fixtures
from trainers.align.rows import VARIANT_ROWS, Row, compare_row, exact

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT.parent / "shared" / "data" / "fixtures"
ROW = Row("states", "states", 1e-3, 1e-2)


def outcome(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], row: Row = ROW, **start: list[float]
) -> tuple[str, str]:
    arrays = [{key: np.array(values) for key, values in side.items()} for side in (ours, theirs, start)]
    result = compare_row("section", row, *arrays)
    return result.status, result.worst


@pytest.mark.parametrize(
    ("own", "status"),
    [
        ([10.0, 0.0], "pass"),
        ([10.0, 0.1009], "pass"),  # 0.001 + 0.01 * 10
        ([10.0, 0.1011], "fail"),
        ([9.8989, 0.0], "fail"),
        ([10.0, float("nan")], "fail"),
        ([float("inf"), 0.0], "fail"),
    ],
)
def test_the_limit_is_absolute_plus_relative_to_the_largest_value(own: list[float], status: str) -> None:
    assert outcome({"states/a": own}, {"states/a": [10.0, 0.0]})[0] == status


def test_a_nan_of_the_reference_fails_too() -> None:
    assert outcome({"states/a": [1.0]}, {"states/a": [float("nan")]})[0] == "fail"


def test_what_is_missing_on_a_side_fails() -> None:
    assert outcome({}, {}) == ("fail", "the reference has no such values")
    assert outcome({"states/a": [1.0]}, {"other/a": [1.0]})[0] == "fail"
    both = {"states/a": [1.0], "states/b": [1.0]}
    assert outcome({"states/a": [1.0]}, both) == ("fail", "only on one side: b (1 in all)")
    assert outcome(both, {"states/a": [1.0]}) == ("fail", "only on one side: b (1 in all)")
    assert outcome({"states/a": [1.0, 1.0]}, {"states/a": [1.0]}) == ("fail", "a: shape [2], reference [1]")


def test_whole_numbers_must_be_equal_and_the_worst_is_named() -> None:
    ids = {"ids/a": [5.0, 6.0], "ids/b": [7.0]}
    assert outcome(ids, ids, exact("ids", "ids"))[0] == "pass"
    assert outcome({**ids, "ids/b": [8.0]}, ids, exact("ids", "ids")) == ("fail", "b")


def test_weights_are_measured_by_their_change() -> None:
    row = Row("weights 10", "weights", 0.0, 1e-2)
    theirs = {"weights 10/a": [100.001]}
    assert outcome({"weights 10/a": [100.00101]}, theirs, row, a=[100.0])[0] == "pass"
    assert outcome({"weights 10/a": [100.00102]}, theirs, row, a=[100.0])[0] == "fail"


def test_the_reference_imports_nothing_of_the_project() -> None:
    allowed = {"__future__", "collections", "json", "sys", "time", "re", "pathlib", "typing"}
    allowed |= {"numpy", "torch", "transformers", "safetensors", "sklearn", "trainers.align.reference"}
    files = sorted((ROOT / "trainers" / "align" / "reference").glob("*.py"))
    assert len(files) >= 4
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("trainers.align.reference"), f"{path}: {name}"
    for package in (ROOT / "trainers", ROOT / "trainers" / "align"):
        tree = ast.parse((package / "__init__.py").read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_stages_show_every_rule() -> None:
    for case in (settings.random_case(), settings.pretrained_case("real")):
        for stage in (case.finetune, case.pretrain):
            assert stage.dropout == 0.0
            assert stage.clip > 0.0
            assert stage.micro_batch is not None
            assert stage.batch % stage.micro_batch in (0, 2)
            assert (stage.adam_beta1, stage.adam_beta2) != (0.9, 0.999)
        assert case.finetune.layer_decay < 1.0
        assert max(case.text_words) + max(case.pair_words or (0,)) > case.finetune.max_length


def test_every_option_has_its_row_or_variant() -> None:
    variants = settings.random_case().variants
    assert set(variants) == set(VARIANT_ROWS)
    assert {stage.freeze for stage in variants.values()} == {"none", "encoder"}
    assert "attention" in {stage.hierarchical for stage in variants.values()}
    original = variants[settings.ORIGINAL]
    assert (original.schedule, original.bias_correction, original.clip_per_parameter) == ("bert_adam", False, True)
    assert float(original.warmup) * settings.TOTAL_STEPS % 1 > 0, "the original code's warm-up ends within a step"
    stages = [settings.rate_stage(values) for values in settings.RATE_SETTINGS.values()]
    assert {stage.schedule for stage in stages} == set(get_args(StageBase.model_fields["schedule"].annotation))
    for key in ("layer_rates", "rate_bands", "decay_embeddings", "plain_rate"):
        assert any(getattr(stage, key) for stage in stages), key
    assert all(len(stage.layer_rates) == settings.NUM_BLOCKS for stage in stages if stage.layer_rates is not None)


# The port's values ------------------------------------------------------------------------------------------------------


def test_absent_values_are_skipped_with_the_reason(tmp_path: Path) -> None:
    assert [result.status for result in compare_fixtures(None)] == ["skipped", "skipped"]
    results = compare_fixtures(tmp_path)
    assert [result.status for result in results] == ["skipped", "skipped"]
    assert str(tmp_path / TOKENS) in results[0].worst


def test_the_ports_own_values_agree() -> None:
    if not FIXTURES.is_dir():
        pytest.skip(f"no trial data at {FIXTURES}")
    tokens, rates = compare_fixtures(FIXTURES)
    assert (tokens.status, tokens.num_arrays) == ("pass", 54)
    assert (rates.status, rates.num_values) == ("pass", 20)


def test_other_values_than_the_ports_fail(tmp_path: Path) -> None:
    folder = tmp_path / "fixtures"
    folder.mkdir()
    (tmp_path / "vocab").mkdir()
    (folder / fixtures.VOCABULARY).write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\nbr\n<\n/\n>\n")
    saved = {"source": "x", "text": "word<br />word", "remove_br": False, "do_lower_case": False, "max_seq_length": 8}
    ids = [2, 5, 7, 6, 8, 9, 5, 3]
    rates = {"base_lr": 1.0, "total_steps": 20, "warmup_proportion": 0.1, "paddle": [0.0, 0.5, 1.0, 17 / 18]}

    def statuses(line: dict[str, object], curve: dict[str, object]) -> list[str]:
        (folder / TOKENS).write_text(json.dumps({**saved, "head_tokens": None, "input_ids": ids, **line}) + "\n")
        (folder / RATES).write_text(json.dumps({**rates, **curve}))
        return [result.status for result in compare_fixtures(folder)]

    assert statuses({}, {}) == ["pass", "pass"]
    assert statuses({"remove_br": True}, {"total_steps": 21}) == ["fail", "fail"]
    assert statuses({"max_seq_length": 7, "head_tokens": 3, "input_ids": [2, 5, 7, 6, 9, 5, 3]}, {}) == ["pass", "pass"]
    assert statuses({"max_seq_length": 7, "head_tokens": 2, "input_ids": [2, 5, 7, 6, 9, 5, 3]}, {}) == ["fail", "pass"]
    with pytest.raises(DataError, match="not readable as a fixture"):
        statuses({"text": 5}, {})
    assert TOKEN_ROW.exact
    assert not RATE_ROW.exact
