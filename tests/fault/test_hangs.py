"""Ranks that get nowhere: noticed within the bound, the right one named with its stack, and the run goes on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from launcher.restart_policy import RestartPolicy
from launcher.rundir import RunDirectory
from tests.fault.launches import meet
from tests.launches import QUICK, left_behind

pytestmark = [pytest.mark.fault, pytest.mark.slow]
NEVER = RestartPolicy("never")
PHASES = {
    "import": 20.0,
    "rendezvous": 2.0,
    "load": 2.0,
    "first_step": 20.0,
    "step": 2.0,
    "evaluate": 1.0,
    "save": 20.0,
}


@pytest.fixture(autouse=True)
def _no_native_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """gdb takes long on a busy machine; one test has it."""
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.parametrize(
    ("fault", "rank", "doing"),
    [
        ("hang:0@finetune:3", 0, "sleeping"),
        ("hang:1@finetune:3", 1, "sleeping"),
        ("spin:1@finetune:3", 1, "sleeping"),
        ("stop:0@finetune:3", 0, "stopped (T state"),
    ],
)
def test_the_rank_that_hangs_is_named_not_those_that_wait_for_it(
    run: RunDirectory, fault: str, rank: int, doing: str
) -> None:
    outcome, _ = meet(run, "--chaos", fault, phases=PHASES, restart=NEVER)
    cause = outcome.root_cause
    assert cause is not None
    assert (cause.kind, cause.rank, cause.step, cause.phase, outcome.exit_code) == ("hang", rank, 3, "step", 1)
    silent = re.match(r"hangs: no progress for (\d+) s in phase 'step' \(bound 2 s\); (.*)", cause.what)
    assert silent is not None, cause.what
    assert 2 <= int(silent[1]) <= 5
    assert silent[2].startswith(doing)
    stacks = {each: run.attempt(0).stacks(0, each).read_text() for each in (0, 1)}
    assert "in all_reduce" in stacks[1 - rank]
    assert f"rank {1 - rank}: stopped because of rank {rank}" in cause.details
    if doing == "sleeping":
        assert f"in _{fault.partition(':')[0]}" in cause.traceback.splitlines()[1]
        assert "in begin_step" in stacks[rank]
    assert left_behind(run) == []


def test_peers_that_give_up_waiting_do_not_hide_the_rank_that_hangs(run: RunDirectory) -> None:
    """The collective fails before the bound of a step is over: the survivor's error is not the cause."""
    outcome, _ = meet(run, "--chaos", "hang:0@finetune:3", "--give-up-s", "11", phases={"step": 300.0}, restart=NEVER)
    cause = outcome.root_cause
    assert cause is not None
    assert (cause.kind, cause.rank, cause.step) == ("hang", 0, 3)
    assert "(its peers gave up waiting)" in cause.what


def test_a_stopped_rank_in_a_collective_is_to_blame(run: RunDirectory) -> None:
    """Its last heartbeat says that it waits, and so does its peer's: the kernel knows better."""
    outcome, _ = meet(run, "--do", "0:stop-waiting=3", phases={**PHASES, "step": 2.0}, restart=NEVER)
    assert outcome.root_cause is not None
    assert outcome.root_cause.rank == 0
    assert "stopped (T state" in outcome.root_cause.what


def test_a_run_goes_on_after_a_hang(run: RunDirectory) -> None:
    outcome, seen = meet(run, "--chaos", "stop:1@finetune:6", phases=PHASES)
    assert (outcome.state, run.attempts()) == ("finished", [0, 1])
    assert [event["step"] for event in seen.of_type("restart")] == [4]
    assert "(bound 2 s)" in seen.of_type("restart")[0]["reason"]


def test_a_hang_is_noticed_however_long_the_run_has_lasted(run: RunDirectory) -> None:
    """The bound of the start-up is over by then."""
    bounds = replace(QUICK, startup_timeout_s=2.0, phases=PHASES)
    arguments = ("--step-s", "0.1", "--steps", "100", "--chaos", "hang:1@finetune:40")
    cause = meet(run, *arguments, bounds=bounds, restart=NEVER)[0].root_cause
    assert cause is not None
    assert (cause.kind, cause.rank, cause.step) == ("hang", 1, 40)
    assert "(bound 2 s)" in cause.what


@pytest.mark.parametrize("phase", ["rendezvous", "load"])
def test_a_hang_before_the_first_step_is_named_with_its_phase(run: RunDirectory, phase: str) -> None:
    outcome, _ = meet(run, "--do", f"1:hang={phase}", phases=PHASES, restart=NEVER)
    assert outcome.root_cause is not None
    assert (outcome.root_cause.kind, outcome.root_cause.rank, outcome.root_cause.phase) == ("hang", 1, phase)


def test_a_long_evaluation_and_a_slow_step_within_the_bound_are_no_hang(run: RunDirectory) -> None:
    """Rank 0 evaluates for several bounds of a batch and of a step, and its peer waits in a step meanwhile."""
    phases = {**PHASES, "step": 3.0, "evaluate": 1.0}
    outcome, _ = meet(run, "--evaluate-s", "7", "--chaos", "slow:1@finetune:9", phases=phases, restart=NEVER)
    assert (outcome.state, outcome.root_cause) == ("finished", None)


def test_where_steps_are_long_the_bound_follows_them(run: RunDirectory) -> None:
    """Steps of 0.3 s allow for 6 s: a pause of 2 s is no hang, though the bound is 1 s."""
    phases = {**PHASES, "step": 1.0}
    arguments = ("--step-s", "0.3", "--steps", "8", "--chaos", "slow:1@finetune:6")
    assert meet(run, *arguments, phases=phases, restart=NEVER)[0].state == "finished"
