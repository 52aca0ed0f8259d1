"""`./run.sh align` for real: everything agrees with Transformers, and each of many ways to be wrong is found by the row it belongs to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launches import ROOT

pytest.importorskip("paddle", reason="needs Paddle")

from tests.fakes.align_mutations import MUTATIONS  # noqa: E402
from trainers.align.alignment import start_reference, wait_for_reference  # noqa: E402
from trainers.align.inputs import write_inputs  # noqa: E402
from trainers.data.cache import cache_root  # noqa: E402
from trainers.model_store import resolve_model  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DOOR = ROOT / "launcher" / "environment" / "__main__.py"
RUNNER = ROOT / "tests" / "fakes" / "align_mutations.py"
NAMES = ["none", *MUTATIONS]
UNAVAILABLE = 69


@pytest.fixture(scope="module")
def reference_python() -> str:
    """The interpreter with PyTorch; made here on first use. Without a network the tests are skipped, except in CI."""
    if own := os.environ.get("BERT4DOC_ALIGN_PYTHON"):
        return own
    made = subprocess.run([sys.executable, "-I", DOOR, "reference"], capture_output=True, text=True)
    if made.returncode == UNAVAILABLE and not os.environ.get("CI"):
        pytest.skip(f"PyTorch and Transformers cannot be installed here: {made.stderr[-300:]}")
    assert made.returncode == 0, made.stderr
    return str(ROOT / ".venv.d" / "align" / "bin" / "python")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}


@pytest.fixture(scope="module")
def failures(reference_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """Mutation: keys of the rows that fail. The reference answers once; two processes share the mutations."""
    directory = tmp_path_factory.mktemp("align")
    write_inputs(directory, None, resolve_model("all-minilm-l6-v2", cache_root(), lambda *_: None).vocab, 1)
    wait_for_reference(start_reference(directory, reference_python), directory)
    halves = [
        subprocess.Popen(
            [sys.executable, RUNNER, directory, *names], stdout=-1, stderr=-1, text=True, cwd=ROOT, env=environment()
        )
        for names in (NAMES[::2], NAMES[1::2])
    ]
    found: dict[str, list[str]] = {}
    for process in halves:
        said, errors = process.communicate()
        assert process.returncode == 0, errors
        found |= {line["name"]: line["failed"] for line in map(json.loads, said.splitlines())}
    yield found


def test_nothing_fails_when_nothing_is_broken(failures: dict[str, list[str]]) -> None:
    assert failures["none"] == []


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_mistake_is_found_by_its_row(failures: dict[str, list[str]], name: str) -> None:
    _, rows, _ = MUTATIONS[name]
    assert set(rows) <= set(failures[name])


def test_rows_before_the_broken_part_still_pass(failures: dict[str, list[str]]) -> None:
    """A row names what is wrong only if it does not fail for everything."""
    assert failures["of equal texts of a pair the first loses"] == ["pairs"]
    assert failures["biases decay"] == ["decay"]
    assert failures["warm-up rounded up"] == ["rates linear"]
    assert failures["classifier reads the block before"] == ["logits"]
    assert failures["macro-F1 is a micro average"] == ["evaluation"]
    assert failures["fourth block in the middle third"] == ["rates rate bands"]
    assert failures["layer rates from the top"] == ["rates layer rates"]
    assert failures["bert_adam's decay begins at 1 where the warm-up ends"] == ["rates bert_adam"]
    assert failures["sum of the fractions instead of their mean"] == ["logits mean"]
    assert failures["largest value over the padding of fractions too"] == ["logits max"]
    assert "weights 2" not in failures["bert_adam's decay begins at 1 in the steps"], "that is still the warm-up"
    for name in ("bias correction left on", "clipping by the global norm instead of each parameter's"):
        assert not {"gradients", "frozen"} & set(failures[name])
    forward = {"token layout", "embeddings", "states", "pooled", "mlm logits", "nsp logits"}
    for name in ("no clipping", "AdamW beta2 0.999 instead of 0.99", "AdamW eps 1e-8 instead of 1e-6"):
        assert not forward & set(failures[name])
        assert "gradients" not in failures[name]
    assert "weights 2" not in failures["AdamW beta2 0.999 instead of 0.99"], "its first update is corrected for the bias"
    assert not {"embeddings", "token layout"} & set(failures["GELU by tanh"])


def test_the_command_with_real_weights(reference_python: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "run.sh", "align", "--json", "--fixtures", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(BERT4DOC_ALIGN_PYTHON=reference_python),
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    rows = {(row["section"], row["key"]): row for row in outcome["rows"]}
    assert outcome["passed"]
    assert [row["status"] for row in outcome["rows"]].count("skipped") == 2, "the port's values are not in that folder"
    sections = {section for section, _ in rows}
    for section, arrays, norm in (("12 random blocks", 206, 12), ("all-minilm-l6-v2", 110, 6)):
        assert f"{section}: fine-tuning" in sections
        assert rows[f"{section}: pre-training", "gradients"]["arrays"] == arrays
        assert rows[f"{section}: pre-training", "weights 10"]["arrays"] == arrays
        assert rows[f"{section}: fine-tuning", "states"]["arrays"] == norm
        assert rows[f"{section}: fine-tuning", "logits"]["arrays"] == 8
    assert rows["12 random blocks: frozen encoder", "frozen"]["arrays"] == 201 - 4
    assert rows["12 random blocks: frozen encoder", "gradients"]["arrays"] == 4
    assert rows["12 random blocks: hierarchical", "gradients"]["arrays"] == 204
    assert rows["12 random blocks: original optimizer", "weights 10"]["arrays"] == 201
    assert all(row["values"] > 0 for row in outcome["rows"] if row["status"] == "pass")


def test_a_reference_that_cannot_run_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "run.sh", "align", "--quick", "--reference-python", "false"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == UNAVAILABLE
    assert "error: the reference ended with exit code 1" in done.stderr
    assert "Traceback" not in done.stderr


BERT_ADAM = """
import numpy as np, torch
from trainers.align.reference.bert_adam import BertAdam
weights = [torch.nn.Parameter(torch.tensor(values)) for values in ([1.0, -2.0], [0.5])]
settings = dict(total_steps=10, warmup_share=0.25, adam_beta1=0.9, adam_beta2=0.999, adam_eps=1e-6, clip=1.0)
groups = [dict(params=[weights[0]], lr=0.1, weight_decay=0.01), dict(params=[weights[1]], lr=0.05, weight_decay=0.0)]
optimizer, expected = BertAdam(groups, settings), [np.array([1.0, -2.0]), np.array([0.5])]
m, v = [np.zeros(2), np.zeros(1)], [np.zeros(2), np.zeros(1)]
for step in range(8):
    share = [0.0, 0.4, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3][step]
    for number, given in enumerate(([3.0, 4.0 + step], [0.1])):
        weights[number].grad = torch.tensor(given)
        gradient = np.array(given) / max(1.0, np.linalg.norm(given))
        m[number] = 0.9 * m[number] + 0.1 * gradient
        v[number] = 0.999 * v[number] + 0.001 * gradient**2
        decay = groups[number]["weight_decay"] * expected[number]
        expected[number] = expected[number] - groups[number]["lr"] * share * (m[number] / (v[number] ** 0.5 + 1e-6) + decay)
    optimizer.step()
for own, wanted in zip(weights, expected):
    np.testing.assert_allclose(own.detach().numpy(), wanted, rtol=1e-5)
print("by hand")
"""


def test_the_original_codes_optimizer_by_hand(reference_python: str) -> None:
    """0.4 and 0.8 of the rate in a warm-up of a quarter of 10 steps, then 1 - x: 0.7 at step 3."""
    done = subprocess.run([reference_python, "-c", BERT_ADAM], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.stdout == "by hand\n", done.stderr
