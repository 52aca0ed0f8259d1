"""Which of several failures is named, and in what words."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from launcher.ends import NodeEnd, NodeFailure, RankEnd
from launcher.root_cause import choose, last_exception, last_traceback


def error(rank: int, t: float, message: str, collective: bool = False, **more: Any) -> RankEnd:
    fields = {
        "t": t,
        "type": "ValueError",
        "message": message,
        "traceback": "TB",
        "collective": collective,
        "exit_code": 1,
    }
    return RankEnd(
        rank, 0, returncode=1, t=t + 1, error={**fields, "stage": "finetune", "step": 17, "phase": "step", **more}
    )


def chosen(*ranks: RankEnd, failure: NodeFailure | None = None) -> Any:
    return choose([NodeEnd(0, "failed", ranks, failure)], "trial")


def test_the_earliest_exception_wins_over_an_earlier_collective_one() -> None:
    cause = chosen(
        error(0, 10.0, "gloo TIMEOUT", collective=True), error(1, 10.5, "bad data row 17"), error(2, 11.0, "later")
    )
    assert cause.line() == "node 0 rank 1, stage finetune, step 17: ValueError: bad data row 17"
    assert (cause.traceback, cause.exit_code) == ("TB", 1)


def test_the_rank_that_was_killed_before_its_peers_complained_is_named() -> None:
    killed = RankEnd(1, 0, signal=signal.SIGKILL, t=10.0, stage="pretrain", step=4)
    assert chosen(error(0, 10.8, "lost the queue"), killed).rank == 1
    assert chosen(error(0, 9.8, "bad row"), killed).rank == 0


def test_a_rank_that_could_not_write_its_end_on_a_full_disk_is_explained() -> None:
    cause = chosen(RankEnd(0, 0, t=2.0, disk_full=True), error(1, 2.5, "lost a peer", collective=True))
    assert (cause.rank, cause.exit_code) == (0, 73)
    assert cause.what == "cannot write: the disk of the run directory is full"
    assert cause.hint == "free some space, then ./run.sh resume trial"
    assert chosen(RankEnd(0, 0, returncode=0, finished=True, disk_full=True)) is None
    assert chosen(RankEnd(0, 0, signal=signal.SIGKILL, disk_full=True)).exit_code == 1


def test_what_the_agent_stopped_is_never_a_cause() -> None:
    stopped = RankEnd(0, 0, signal=signal.SIGTERM, t=9.0, stopped_by_agent=True)
    assert chosen(stopped, error(1, 10.0, "x")).rank == 1
    assert chosen(stopped) is None
    assert chosen(RankEnd(0, 0, returncode=75, t=1.0), RankEnd(1, 0, returncode=0, finished=True, t=2.0)) is None


def test_sigkill_blames_the_memory_only_as_far_as_the_kernel_counted() -> None:
    killed = RankEnd(0, 0, signal=signal.SIGKILL, t=1.0)
    assert "possibly the out-of-memory killer" in chosen(killed).what
    counted = chosen(RankEnd(0, 0, signal=signal.SIGKILL, t=1.0, oom_kills=1))
    assert counted.what == "killed (SIGKILL) by the kernel's out-of-memory killer"
    assert "micro_batch" in counted.hint
    assert "./run.sh resume trial" in counted.hint


def test_an_abort_inside_gloo_is_a_symptom_and_a_plain_one_is_not() -> None:
    symptom = RankEnd(0, 0, signal=signal.SIGABRT, t=1.0, log_tail="gloo::IoException: Connection closed by peer")
    plain = RankEnd(1, 0, signal=signal.SIGABRT, t=2.0, log_tail="free(): invalid pointer")
    assert chosen(symptom, plain).rank == 1
    assert chosen(symptom).rank == 0


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (RankEnd(0, 0, signal=11, t=1.0), "crashed (SIGSEGV): invalid memory access in native code"),
        (RankEnd(0, 0, signal=15, t=1.0), "terminated (SIGTERM): by something outside this launcher"),
        (RankEnd(0, 0, signal=40, t=1.0), "crashed (signal 40)"),
        (RankEnd(0, 0, returncode=3, t=1.0), "ended with exit code 3"),
        (
            RankEnd(0, 0, returncode=0, t=1.0),
            "left with exit code 0 before its work was done, while other ranks still ran",
        ),
        (RankEnd(0, 0, t=1.0), "vanished: neither an exit code nor a signal was recorded"),
    ],
)
def test_ends_without_an_error_record_have_words(end: RankEnd, words: str) -> None:
    assert chosen(end).what == words


def test_an_early_exit_yields_to_any_failure_and_beats_a_collective_error() -> None:
    early = RankEnd(1, 0, returncode=0, t=5.0)
    assert chosen(early, error(0, 9.0, "gloo", collective=True)).rank == 1
    assert chosen(early, RankEnd(0, 0, returncode=3, t=9.0)).rank == 0


def test_a_documented_exit_code_is_kept_and_another_becomes_1() -> None:
    assert chosen(RankEnd(0, 0, returncode=65, t=1.0)).exit_code == 65
    assert chosen(RankEnd(0, 0, returncode=3, t=1.0)).exit_code == 1
    assert chosen(error(0, 1.0, "x", exit_code=73)).exit_code == 73


@pytest.mark.parametrize(
    ("kind_of_exception", "message", "more", "kind", "code", "hint"),
    [
        (
            "MemoryError",
            "ResourceExhaustedError: Out of memory error on GPU 0. Cannot allocate 2GB",
            {},
            "memory",
            1,
            "micro_batch",
        ),
        ("OSError", "(External) CUDA error(2), out of memory.", {}, "memory", 1, "micro_batch"),
        ("OSError", "[Errno 28] No space left on device: 'x'", {}, "disk", 73, "free some space"),
        (
            "OSError",
            "(External) NCCL error(2), unhandled system error",
            {"collective": True},
            "peer",
            1,
            "resume trial",
        ),
        ("RuntimeError", "gloo: Connection closed by peer", {"collective": True}, "peer", 1, "resume trial"),
        ("TimeoutError", "timed out", {}, "connection", 1, "resume trial"),
        ("KeyError", "'label'", {}, "error", 1, ""),
        ("DataError", "train.tsv:3", {"user_error": True, "exit_code": 65, "hint": "mend"}, "user", 65, "mend"),
        ("CannotWriteError", "full", {"user_error": True, "exit_code": 73}, "disk", 73, "free some space"),
        ("NoProgressError", "NaN", {"user_error": True, "exit_code": 76, "hint": "lower lr"}, "user", 76, "lower lr"),
    ],
)
def test_an_errors_text_tells_its_kind_and_what_to_do(
    kind_of_exception: str, message: str, more: dict[str, Any], kind: str, code: int, hint: str
) -> None:
    cause = chosen(error(0, 1.0, message, **{"type": kind_of_exception, **more}))
    assert (cause.kind, cause.exit_code) == (kind, code)
    assert hint in cause.hint
    assert bool(hint) == bool(cause.hint)


def test_all_other_ranks_are_listed_as_stopped_because_of_the_one() -> None:
    others = [error(rank, 12.0, "gloo", collective=True) for rank in (0, 2, 3, 4)]
    done = RankEnd(6, 0, returncode=0, finished=True)
    killed = RankEnd(1, 0, signal=signal.SIGKILL, t=11.0, rss_bytes=3_100_000_000)
    end = NodeEnd(
        0, "failed", (killed, *others, done, RankEnd(7, 0, signal=15, stopped_by_agent=True)), memory="2 of 9 GB"
    )
    cause = choose([end], "trial")
    assert cause is not None
    assert cause.kind == "killed"
    assert cause.details == (
        "memory: rank 1 held 3.1 GB; 2 of 9 GB",
        "ranks 0, 2-4, 7: stopped because of rank 1",
    )


def test_the_samples_in_work_are_named() -> None:
    cause = chosen(error(0, 1.0, "bad", samples={"ids": [3], "text": "samples 3 (train.tsv:5)"}))
    assert cause.details == ("in work: samples 3 (train.tsv:5)",)


def test_a_native_crash_shows_pythons_stack_instead_of_the_log() -> None:
    crash = RankEnd(0, 0, signal=11, log_tail="noise", native="Fatal Python error: Segmentation fault")
    assert chosen(crash).traceback == "Fatal Python error: Segmentation fault"
    assert chosen(RankEnd(0, 0, signal=11, log_tail="noise")).traceback == "noise"


def test_a_users_mistake_has_no_traceback_and_no_exception_name() -> None:
    cause = chosen(error(0, 1.0, "train.tsv:3: no label", user_error=True, hint="mend the row", exit_code=65))
    assert (cause.what, cause.traceback, cause.hint) == ("train.tsv:3: no label", "", "mend the row")


def test_a_taken_port_explains_the_aborts_that_it_causes() -> None:
    port = NodeFailure("port", "port 6000 is in use", 9.0, 69)
    assert chosen(RankEnd(0, 0, signal=signal.SIGABRT, t=1.0), failure=port).what == "port 6000 is in use"
    startup = NodeFailure("startup", "no first step", 9.0, 69, rank=0, phase="load")
    assert chosen(error(1, 10.0, "x"), failure=startup).rank == 1
    assert (
        chosen(RankEnd(0, 0, stopped_by_agent=True), failure=startup).line()
        == "node 0 rank 0, during load: no first step"
    )


def test_the_last_word_survives_json() -> None:
    end = NodeEnd(1, "failed", (error(0, 1.0, "x"),), NodeFailure("port", "p", 1.0, 69))
    assert NodeEnd.from_json(json.loads(json.dumps(end.to_json()))) == end


def test_the_last_traceback_is_cut_out_of_a_log() -> None:
    log = (
        "Traceback (most recent call last):\n  File 'a'\nKeyError: 1\nnoise\n"
        "Traceback (most recent call last):\n  File 'b', line 2\n    f()\nmodule.CustomError: two\nmore noise\n"
    )
    assert last_traceback(log).splitlines()[-1] == "module.CustomError: two"
    assert "KeyError" not in last_traceback(log)
    assert last_exception(log) == "module.CustomError: two"
    assert last_traceback("nothing here") == last_exception("nothing here") == ""
