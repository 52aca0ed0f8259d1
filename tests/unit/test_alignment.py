"""What `align` shows and how it ends, from outcomes written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher import alignment
from launcher.cli.main import main


def row(key: str, status: str, **changes: Any) -> dict[str, Any]:
    worst = "bert.encoder.layer.3.attention.self.key.bias"
    return {
        "section": "12 random blocks: fine-tuning",
        "key": key,
        "what": f"the {key}",
        "status": status,
        "arrays": 201,
        "values": 1000,
        "max_abs": 1.25e-7,
        "max_rel": 3e-6,
        "tolerance_abs": 1e-8,
        "tolerance_rel": 2e-4,
        "worst": worst,
        "details": [{"item": worst, "max_abs": 1.25e-7, "max_rel": 3e-6, "passed": status == "pass"}],
        **changes,
    }


def outcome(*rows: dict[str, Any]) -> dict[str, Any]:
    passed = all(each["status"] != "fail" for each in rows)
    facts = {"paddle": "3.3.1", "torch": "2.13.0", "transformers": "5.0.0", "model": "m", "seconds": 61.2}
    return {"passed": passed, **facts, "rows": list(rows)}


GOOD = outcome(
    row("gradients", "pass"),
    row("ids", "pass", max_abs=0.0, max_rel=0.0, tolerance_abs=0.0, tolerance_rel=0.0),
    row("port", "skipped", max_abs=float("nan"), max_rel=float("nan"), worst="skipped: not here: /x", details=[]),
)
BAD = outcome(row("gradients", "fail", max_abs=0.5), row("states", "pass"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(result: dict[str, Any], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(alignment, "run", lambda request: result)
        code = main(["align", *arguments])
        return code, capsys.readouterr().out

    return call


def test_agreement_ends_with_0_and_the_counts(run: Any) -> None:
    code, said = run(GOOD)
    assert code == 0
    assert "1.2e-07   3.0e-06   1e-08 + 2e-04" in said
    assert "layer 3.attention.self.key.bias" in said
    assert "equal" in said
    assert "skipped" in said
    assert "not here: /x" in said
    assert "2 of 3 rows pass, 0 fail, 1 skipped; 3,000 numbers compared in 61 s" in said
    assert "Paddle 3.3.1; PyTorch 2.13.0, Transformers 5.0.0" in said
    assert "FAIL" not in said


def test_one_row_that_fails_ends_with_1(run: Any) -> None:
    code, said = run(BAD)
    assert code == 1
    line = next(line for line in said.splitlines() if "the gradients" in line)
    assert "FAIL" in line
    assert "5.0e-01" in line
    assert "pass" in next(line for line in said.splitlines() if "the states" in line)
    assert said.splitlines()[-1].startswith("not aligned: ")


def test_verbose_shows_every_array_and_json_is_complete(run: Any) -> None:
    code, said = run(BAD, "--verbose")
    assert code == 1
    assert said.count("layer 3.attention.self.key.bias") == 4
    code, said = run(BAD, "--json")
    assert code == 1
    assert json.loads(said) == BAD
