"""Faults on purpose: how they are written, and when each is due."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from configs.chaos import KINDS, Fault, check_faults, parse_fault
from configs.errors import ConfigError
from trainers.engine.chaos import _ACTS, NoChaos, make_chaos


def test_a_fault_is_read_and_written_alike() -> None:
    assert parse_fault("kill:1@20") == Fault("kill", 1, 20)
    assert parse_fault("every:nan:0@pre-train_2:7") == Fault("nan", 0, 7, "pre-train_2", every=True)
    for text in ("kill:1@20", "every:nan:0@pretrain:7", "exit0:12@0"):
        assert str(parse_fault(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "kill", "kill:1", "kill:@3", "kill:1@", "die:1@3", "kill:-1@3", "kill:1@3.5", "kill:1@3 ", "often:kill:1@3"],
)
def test_anything_else_is_refused_with_the_kinds(text: str) -> None:
    with pytest.raises(ConfigError, match="KIND one of kill, hang"):
        parse_fault(text)


def test_a_rank_or_stage_that_is_not_there_is_refused() -> None:
    stages = ("pretrain", "finetune")
    checked = check_faults((parse_fault("kill:1@3"), parse_fault("hang:0@finetune:4")), 2, stages)
    assert [str(fault) for fault in checked] == ["kill:1@pretrain:3", "hang:0@finetune:4"]
    with pytest.raises(ConfigError, match="no rank 2; ranks: 0 to 1"):
        check_faults((parse_fault("kill:2@3"),), 2, stages)
    with pytest.raises(ConfigError, match="no unfinished stage 'x'; stages: pretrain, finetune"):
        check_faults((parse_fault("kill:0@x:3"),), 2, stages)


def test_without_faults_the_loop_gets_an_object_that_does_nothing(tmp_path: Path) -> None:
    assert isinstance(make_chaos([], 0, tmp_path), NoChaos)
    assert NoChaos().begin_step("finetune", 3) == 1.0


def test_a_fault_is_due_once_in_a_run_and_every_one_again_and_again(tmp_path: Path) -> None:
    once, again = parse_fault("nan:1@finetune:3"), parse_fault("every:nan:1@finetune:3")

    def poisoned(fault: Fault, rank: int = 1) -> list[int]:
        chaos = make_chaos([fault], rank, tmp_path)
        return [step for step in range(6) if math.isnan(chaos.begin_step("finetune", step))]

    assert poisoned(once, rank=0) == []
    assert poisoned(once) == [3]
    assert poisoned(once) == [], "the next attempt goes on"
    assert poisoned(again) == poisoned(again) == [3, 4, 5]
    assert not math.isnan(make_chaos([again], 1, tmp_path).begin_step("pretrain", 3))


def test_every_kind_has_an_act() -> None:
    assert set(_ACTS) == set(KINDS)


@pytest.mark.parametrize(("kind", "status"), [("kill", -9), ("segv", -11), ("term", -15), ("exit0", 0)])
def test_ends_are_real(tmp_path: Path, kind: str, status: int) -> None:
    code = (
        "from pathlib import Path; import sys; from configs.chaos import parse_fault; from trainers.engine.chaos import make_chaos\n"
        f"make_chaos([parse_fault('{kind}:0@s:1')], 0, Path(sys.argv[1])).begin_step('s', 1); sys.exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == status
