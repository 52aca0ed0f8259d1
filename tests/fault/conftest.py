"""The seed of everything random in these tests: printed, and taken from FAULT_SEED to repeat a run."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from launcher.rundir import RunDirectory

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))


def pytest_report_header() -> str:
    return f"faults: FAULT_SEED={SEED}"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of one test."""
    print(f"FAULT_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "trial")
