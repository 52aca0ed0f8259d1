"""Whole launches with a worker and a launcher that need no Paddle: how each end is named, and that nothing is left."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from launcher.rundir import RunDirectory
from launcher.spec import Bounds
from tests.launches import Recorder, fake_launch, launch, left_behind

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs", "trial")


def test_a_run_that_works_is_finished(run: RunDirectory) -> None:
    outcome, seen = launch(run)
    assert (outcome.state, outcome.exit_code, outcome.root_cause) == ("finished", 0, None)
    status = run.read_status()
    assert status is not None
    assert (status["state"], status["step"], status["total_steps"], status["exit_code"]) == ("finished", 5, 5, 0)
    assert next(event["type"] for event in run.read_events()) == "attempt_start"
    assert {event["rank"] for event in seen.of_type("rank_exit")} == {0, 1}
    assert seen.of_type("rank")
    assert seen.of_type("heartbeats")
    assert left_behind(run) == []


def test_the_rank_that_raised_is_named_not_its_peers(run: RunDirectory) -> None:
    outcome, _ = launch(run, "--do", "1:raise=bad data row 17", "--do", "0:collective=0.2", "--steps", "500")
    assert outcome.root_cause is not None
    assert outcome.root_cause.line() == "node 0 rank 1, stage finetune, step 3: ValueError: bad data row 17"
    assert "Traceback" in outcome.root_cause.traceback
    assert outcome.exit_code == 1
    assert run.read_status()["root_cause"]["line"] == outcome.root_cause.line()  # type: ignore[index]
    assert left_behind(run) == []


def test_a_rank_that_never_ends_is_killed_with_its_children(run: RunDirectory) -> None:
    outcome, _ = launch(run, "--do", "1:raise=x", "--do", "0:hang")
    assert outcome.root_cause is not None
    assert outcome.root_cause.rank == 1
    assert left_behind(run) == []


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("kill=9", "killed (SIGKILL)"),
        ("kill=11", "crashed (SIGSEGV)"),
        ("exit=3", "exit code 3"),
        ("exit=0", "left with exit code 0"),
    ],
)
def test_ends_without_an_exception_are_named(run: RunDirectory, action: str, words: str) -> None:
    outcome, _ = launch(run, "--do", f"1:{action}", "--steps", "1000000")
    assert outcome.root_cause is not None
    assert outcome.root_cause.rank == 1
    assert words in outcome.root_cause.what
    assert outcome.state == "failed"
    assert outcome.exit_code == 1
    assert left_behind(run) == []


def test_a_collective_failure_alone_is_the_cause(run: RunDirectory) -> None:
    outcome, _ = launch(run, "--do", "0:collective=0.1", "--steps", "500")
    assert outcome.root_cause is not None
    assert "Connection closed by peer" in outcome.root_cause.what


def test_ranks_that_do_not_get_going_are_named_with_their_phase(run: RunDirectory) -> None:
    outcome, _ = launch(run, "--do", "1:stuck", "--steps", "500", bounds=Bounds(2, 5, 0.3, 0.3, 1))
    assert outcome.root_cause is not None
    assert outcome.exit_code == 69
    line = "node 0 rank 1, stage finetune, during rendezvous: no first step within 2 s"
    assert outcome.root_cause.line().startswith(line)
    assert left_behind(run) == []


def test_a_worker_that_cannot_be_imported_is_named(run: RunDirectory, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import a_module_that_is_not_there\n")
    outcome, _ = launch(run, worker=str(broken))
    assert outcome.root_cause is not None
    assert "ModuleNotFoundError: No module named 'a_module_that_is_not_there'" in outcome.root_cause.what
    assert "broken.py" in outcome.root_cause.traceback


def test_a_syntax_error_is_named(run: RunDirectory, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    outcome, _ = launch(run, worker=str(broken))
    assert outcome.root_cause is not None
    assert outcome.root_cause.what.startswith("SyntaxError")


def test_a_missing_interpreter_is_named(run: RunDirectory) -> None:
    outcome, _ = launch(run, python="/nowhere/python")
    assert outcome.root_cause is not None
    assert "/nowhere/python" in outcome.root_cause.what
    assert outcome.state == "failed"


def test_a_failing_prepare_command_ends_the_run_with_its_own_words(run: RunDirectory, tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    lines = [
        {"type": "prepare", "what": "read", "label": "TREC train", "done": 1, "total": 2, "unit": "rows"},
        {"type": "error", "message": "train.tsv:3: no label", "hint": "mend the row", "exit_code": 65},
    ]
    script.write_text(
        f"import json, sys\nfor line in {lines!r}:\n    print(json.dumps(line), flush=True)\nsys.exit(65)\n"
    )
    outcome, seen = launch(run, prepare_argv=(fake_launch(run).python, str(script)))
    assert outcome.exit_code == 65
    assert outcome.root_cause is not None
    assert (outcome.root_cause.what, outcome.root_cause.hint) == ("train.tsv:3: no label", "mend the row")
    assert seen.of_type("prepare")[0]["label"] == "TREC train"


def test_a_failure_on_one_node_stops_the_other(run: RunDirectory) -> None:
    outcome, seen = launch(run, "--do", "3:raise=on the second node", "--steps", "1000000", nodes=(2, 2))
    assert outcome.root_cause is not None
    assert (outcome.root_cause.node, outcome.root_cause.rank) == (1, 3)
    assert {event["rank"] for event in seen.of_type("rank_exit")} == {0, 1, 2, 3}
    assert left_behind(run) == []


def test_a_fault_of_the_observer_does_not_stop_the_run(run: RunDirectory) -> None:
    class Broken(Recorder):
        def on_event(self, event: object) -> None:
            raise BrokenPipeError("no terminal")

    class BrokenLater(Recorder):
        def tick(self) -> None:
            raise BrokenPipeError("no terminal")

    from launcher.supervisor import supervise

    for number, observer in enumerate((Broken(), BrokenLater()), start=1):
        with run.lock():
            outcome = supervise(fake_launch(run), run, observer)
        assert outcome.state == "finished"
        assert sum("BrokenPipeError" in event.get("text", "") for event in run.read_events()) == number


def test_every_file_of_a_run_is_private(run: RunDirectory) -> None:
    launch(run)
    for path in (run.path, *run.path.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_secret_reaches_no_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-4711-do-not-write"
    for name in ("HF_TOKEN", "BERT4DOC_API_KEY", "NCCL_SECRET", "https_proxy", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, canary)
    outcome, seen = launch(run)
    assert outcome.state == "finished"
    assert canary not in json.dumps(seen.events, default=str)
    for path in run.path.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path
