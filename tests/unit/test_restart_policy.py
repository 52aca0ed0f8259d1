"""The table of restarts: which failure is followed by another attempt, and after how long."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.protocol import RootCause
from launcher.restart_policy import Decision, Failure, RestartPolicy, decide

POLICY = RestartPolicy("transient", max_without_progress=2, backoff_s=5.0)


def failure(kind: str = "killed", code: int = 1, step: int | None = 7, saved: int = 5, **more: Any) -> Failure:
    place = {"node": 0, "rank": 1, "stage": "finetune", "phase": "step", **more}
    cause = RootCause(step=step, what="what happened", traceback="", exit_code=code, kind=kind, **place)
    return Failure(cause, (0, saved))


@pytest.mark.parametrize(
    "kind", ["killed", "crash", "terminated", "exit", "early_exit", "peer", "hang", "startup", "launcher", "agent"]
)
def test_what_may_pass_is_restarted(kind: str) -> None:
    decision = decide(POLICY, [failure(kind)])
    assert decision == Decision(True, "node 0 rank 1, stage finetune, step 7: what happened", 5.0)
    assert not decide(RestartPolicy("never"), [failure(kind)]).restart


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("error", 1),
        ("memory", 1),
        ("disk", 73),
        ("user", 2),
        ("user", 65),
        ("user", 76),
        ("prepare", 65),
        ("port", 69),
        ("start", 1),
        ("", 70),
        ("exit", 2),
        ("agent", 73),
    ],
)
def test_what_would_come_back_is_not(kind: str, code: int) -> None:
    decision = decide(POLICY, [failure(kind, code)])
    assert (decision.restart, decision.exit_code) == (False, None)
    assert decision.reason.startswith("not restarted: ")


def test_a_data_error_behind_a_transient_kind_is_still_final() -> None:
    assert decide(POLICY, [failure("connection", 69)]).restart
    assert not decide(POLICY, [failure("connection", 65)]).restart


def test_the_pause_doubles_while_nothing_new_is_saved_and_starts_over_when_something_is() -> None:
    policy = RestartPolicy("transient", max_without_progress=9, backoff_s=5.0)
    steps = [1, 2, 3, 4, 11, 12]
    saved = [0, 0, 0, 0, 10, 10]
    failures = [failure(step=step, saved=at) for step, at in zip(steps, saved, strict=True)]
    delays = [decide(policy, failures[: count + 1]).delay_s for count in range(len(failures))]
    assert delays == [5.0, 10.0, 20.0, 40.0, 5.0, 10.0]
    many = [failure(step=step, saved=0) for step in range(9)]
    assert decide(policy, many).delay_s == 300.0


def test_restarts_in_vain_are_counted_since_the_last_new_checkpoint() -> None:
    vain = [failure(step=step, saved=5) for step in (6, 7, 8)]
    assert decide(POLICY, vain[:2]).restart
    last = decide(POLICY, vain)
    assert (last.restart, last.exit_code) == (False, 76)
    assert last.reason == "not restarted: 2 restarts in a row have brought no newer checkpoint"
    assert decide(POLICY, [*vain[:2], failure(step=11, saved=10)]).restart


def test_a_finished_stage_is_progress() -> None:
    early = Failure(failure(step=9).cause, (0, 95))
    later = Failure(failure(step=2).cause, (1, 0))
    assert decide(RestartPolicy("transient", 1), [early, later]).restart


def test_the_same_failure_at_the_same_step_is_one_too_many() -> None:
    twice = [failure(step=7, saved=5), failure(step=7, saved=6)]
    assert decide(POLICY, twice).exit_code == 76
    other_rank = [failure(step=7, saved=5), failure(step=7, saved=6, rank=0)]
    other_kind = [failure(step=7, saved=5), failure("hang", step=7, saved=6)]
    at_the_start = [failure(step=0, saved=5, phase="rendezvous")] * 2
    for failures in (other_rank, other_kind, at_the_start):
        assert decide(POLICY, failures).restart
