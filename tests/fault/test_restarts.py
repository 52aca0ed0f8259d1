"""Whether a failed run is started again, from where, and when it gives up. Real processes, ranks without Paddle."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

import pytest

from launcher.protocol import Event
from launcher.restart_policy import RestartPolicy
from launcher.rundir import RunDirectory
from tests.fault.launches import meet, meet_apart
from tests.launches import left_behind, wait_until

pytestmark = [pytest.mark.fault, pytest.mark.slow]


def start_steps(events: Sequence[Event]) -> list[int]:
    """Where each attempt began, by rank 0."""
    records = [event["record"] for event in events if event.get("type") == "rank"]
    return [each["start_step"] for each in records if each["type"] == "stage_start" and each["rank"] == 0]


def test_a_killed_rank_goes_on_from_the_newest_checkpoint(run: RunDirectory) -> None:
    outcome, seen = meet(run, "--chaos", "kill:1@finetune:6")
    assert (outcome.state, outcome.exit_code, outcome.attempt) == ("finished", 0, 1)
    assert run.attempts() == [0, 1]
    restart = seen.of_type("restart")[0]
    assert (restart["attempt"], restart["step"], restart["delay_s"]) == (1, 4, 0.05)
    assert restart["reason"].startswith("node 0 rank 1, stage finetune, step 6: killed (SIGKILL)")
    assert start_steps(seen.events) == [0, 4]
    assert left_behind(run) == []


def test_the_same_failure_at_the_same_step_twice_ends_the_run(run: RunDirectory) -> None:
    outcome, _ = meet(run, "--chaos", "every:segv:1@finetune:6")
    assert (outcome.state, outcome.exit_code) == ("failed", 76)
    assert outcome.note == "not restarted: attempts 0 and 1 failed alike at step 6"
    assert run.attempts() == [0, 1]
    status = run.read_status() or {}
    assert (status["exit_code"], status["note"], status["root_cause"]["exit_code"]) == (76, outcome.note, 76)


def test_a_run_that_saves_nothing_new_is_not_restarted_for_ever(run: RunDirectory) -> None:
    faults = [part for step in (1, 2, 3, 5) for part in ("--chaos", f"kill:1@finetune:{step}")]
    outcome, _ = meet(run, *faults, "--save-every", "100")
    assert (outcome.exit_code, run.attempts()) == (76, [0, 1, 2])
    assert outcome.note == "not restarted: 2 restarts in a row have brought no newer checkpoint"


def test_a_run_that_gets_further_is_restarted_more_often_than_that(run: RunDirectory) -> None:
    faults = [part for step in (1, 3, 5, 7, 9) for part in ("--chaos", f"kill:0@finetune:{step}")]
    policy = RestartPolicy("transient", max_without_progress=1, backoff_s=0.01)
    outcome, seen = meet(run, *faults, "--save-every", "2", restart=policy)
    assert (outcome.state, run.attempts()) == ("finished", [0, 1, 2, 3, 4, 5])
    assert start_steps(seen.events) == [0, 0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--chaos", "raise:1@finetune:3"), 1, "the code would raise the same error again"),
        (("--chaos", "oom:1@finetune:3"), 1, "the same batch would need the same memory"),
        (("--do", "1:error=config"), 2, "does not mend itself"),
        (("--do", "1:error=data"), 65, "does not mend itself"),
        (("--do", "1:error=write"), 73, "the disk has to be mended first"),
    ],
)
def test_what_would_come_back_is_not_restarted(
    run: RunDirectory, arguments: tuple[str, ...], code: int, words: str
) -> None:
    outcome, seen = meet(run, *arguments)
    assert (outcome.state, outcome.exit_code, run.attempts()) == ("failed", code, [0])
    assert words in outcome.note
    assert seen.of_type("restart") == []
    assert outcome.root_cause is not None
    assert outcome.root_cause.rank == 1


def test_the_root_cause_names_samples_memory_and_what_became_of_the_others(run: RunDirectory) -> None:
    cause = meet(run, "--chaos", "oom:1@finetune:3")[0].root_cause
    assert cause is not None
    assert cause.details[0] == "in work: samples 7 (train.tsv:9)"
    assert cause.details[1].startswith("memory: rank 1 held 0.")
    assert cause.details[2] == "rank 0: stopped because of rank 1"
    assert "lower micro_batch" in cause.hint


def test_a_crash_in_native_code_shows_pythons_stack(run: RunDirectory) -> None:
    outcome, _ = meet(run, "--chaos", "segv:1@finetune:3", restart=RestartPolicy("never"))
    assert outcome.root_cause is not None
    assert outcome.root_cause.what == "crashed (SIGSEGV): invalid memory access in native code"
    assert "Fatal Python error: Segmentation fault" in outcome.root_cause.traceback
    assert "in begin_step" in outcome.root_cause.traceback
    assert not run.attempt(0).native(0).exists(), "empty files are removed"


def test_a_rank_that_leaves_with_0_is_named_and_restarted(run: RunDirectory) -> None:
    outcome, seen = meet(run, "--chaos", "exit0:1@finetune:6")
    assert outcome.state == "finished"
    assert "left with exit code 0 before its work was done" in seen.of_type("restart")[0]["reason"]


@pytest.mark.parametrize(("save_every", "code"), [(2, 75), (100, 143)])
def test_a_stop_during_the_pause_ends_the_run_at_once(run: RunDirectory, save_every: int, code: int) -> None:
    call = (
        f"'--chaos', 'kill:1@finetune:6', '--save-every', '{save_every}', restart=RestartPolicy('transient', 2, 60.0)"
    )
    supervisor = meet_apart(run, call)
    wait_until(lambda: (run.read_status() or {}).get("state") == "restarting")
    asked = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(5) == code
    assert time.monotonic() - asked < 2
    assert (run.read_status() or {})["state"] == "stopped"
    assert run.attempts() == [0]


def test_a_failure_after_the_last_stage_is_saved_is_no_failure(run: RunDirectory) -> None:
    (run.path / "finetune").mkdir()
    (run.path / "finetune" / "done.json").write_text("{}")
    outcome, seen = meet(run, "--chaos", "kill:1@finetune:6")
    assert (outcome.state, outcome.exit_code) == ("finished", 0)
    assert any("after everything was saved" in message["text"] for message in seen.of_type("message"))
