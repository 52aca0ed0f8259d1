"""Takes each defence away in a copy of the project and runs the test that must then fail: `python -m tests.fault.mutations [WORD]`.

With a word, only the mutations whose name has it. Exit code 1 when a test passes without its defence.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("cluster", "configs", "launcher", "trainers", "tests", "run.sh", ".pytest.ini")


@dataclass(frozen=True)
class Mutation:
    """A change of one file, and the test that notices it."""

    defence: str
    file: str
    old: str
    new: str
    test: str


RESTARTS, HANGS, STOPS = "tests/fault/test_restarts.py", "tests/fault/test_hangs.py", "tests/fault/test_stops.py"
POLICY = "tests/unit/test_restart_policy.py"
MUTATIONS = (
    Mutation("a failed run is restarted", "launcher/supervisor.py", "if self._pause(decision.delay_s):", "if False:",
             f"{RESTARTS}::test_a_killed_rank_goes_on_from_the_newest_checkpoint"),
    Mutation("the same failure twice ends it", "launcher/restart_policy.py", "if earlier is not None:", "if False:",
             f"{RESTARTS}::test_the_same_failure_at_the_same_step_twice_ends_the_run"),
    Mutation("restarts in vain are bounded", "launcher/restart_policy.py", "if in_vain >= policy.max_without_progress:", "if False:",
             f"{RESTARTS}::test_a_run_that_saves_nothing_new_is_not_restarted_for_ever"),
    Mutation("progress resets the count", "launcher/restart_policy.py", "if after.committed > before.committed:", "if False:",
             f"{RESTARTS}::test_a_run_that_gets_further_is_restarted_more_often_than_that"),
    Mutation("config and data errors are final", "launcher/restart_policy.py",
             "if last.cause.exit_code in FINAL_CODES or last.cause.kind not in TRANSIENT:", "if False:",
             f"{RESTARTS}::test_what_would_come_back_is_not_restarted"),
    Mutation("final exit codes beat a transient kind", "launcher/restart_policy.py",
             "last.cause.exit_code in FINAL_CODES or ", "", f"{POLICY}::test_a_data_error_behind_a_transient_kind_is_still_final"),
    Mutation("a stop ends the pause", "launcher/supervisor.py", "while not self._stop.requested and time.monotonic() < until:",
             "while time.monotonic() < until:", f"{RESTARTS}::test_a_stop_during_the_pause_ends_the_run_at_once"),
    Mutation("75 only with a checkpoint", "launcher/supervisor.py", "int(Exit.PREEMPTED) if any(saved) else self._stop.exit_code",
             "int(Exit.PREEMPTED)", f"{RESTARTS}::test_a_stop_during_the_pause_ends_the_run_at_once"),
    Mutation("a finished run is finished", "launcher/supervisor.py", "if self._launch.is_complete:", "if False:",
             f"{RESTARTS}::test_a_failure_after_the_last_stage_is_saved_is_no_failure"),
    Mutation("a fault happens once", "trainers/engine/chaos.py", "os.O_EXCL | ", "",
             f"{RESTARTS}::test_a_killed_rank_goes_on_from_the_newest_checkpoint"),
    Mutation("samples in the error record", "trainers/engine/records.py", '"samples": self._samples(),', "",
             f"{RESTARTS}::test_the_root_cause_names_samples_memory_and_what_became_of_the_others"),
    Mutation("Python's stack at a crash", "trainers/engine/stacks.py", "faulthandler.enable(file=_open(path))", "_open(path)",
             f"{RESTARTS}::test_a_crash_in_native_code_shows_pythons_stack"),
    Mutation("hangs are noticed", "launcher/rank_group.py", "return late or self._watchdog.find_hang(now)", "return late",
             f"{HANGS}::test_a_run_goes_on_after_a_hang"),
    Mutation("waiting ranks are not to blame", "launcher/watchdog.py", "return (not frozen, self._waits(rank), ",
             "return (not frozen, not self._waits(rank), ",
             f"{HANGS}::test_the_rank_that_hangs_is_named_not_those_that_wait_for_it"),
    Mutation("a stopped rank is to blame", "launcher/watchdog.py", 'in ("T", "t", "D")', 'in ("X",)',
             f"{HANGS}::test_a_stopped_rank_in_a_collective_is_to_blame"),
    Mutation("stacks are written", "launcher/watchdog.py", "stacks.dump(files)", "pass",
             f"{HANGS}::test_the_rank_that_hangs_is_named_not_those_that_wait_for_it"),
    Mutation("waiting for a long evaluation is no hang", "launcher/watchdog.py", 'if not rank.heartbeat.get("waits")]', "]",
             f"{HANGS}::test_a_long_evaluation_and_a_slow_step_within_the_bound_are_no_hang"),
    Mutation("bounds follow long steps", "launcher/watchdog.py", "bound = max(bound, SLOW_STEPS", "bound = max(bound, 0",
             f"{HANGS}::test_where_steps_are_long_the_bound_follows_them"),
    Mutation("peers that give up are symptoms", "launcher/watchdog.py",
             "if not all(rank.error is not None and", "if all(rank.error is not None and",
             f"{HANGS}::test_peers_that_give_up_waiting_do_not_hide_the_rank_that_hangs"),
    Mutation("every signal is caught", "trainers/worker.py", "signal.SIGUSR1, signal.SIGUSR2)", "signal.SIGUSR1)",
             f"{STOPS}::test_every_stop_signal_to_one_rank_stops_all"),
    Mutation("the time limit", "launcher/stop_requests.py", "return bool(self.signals) or self._time_is_up",
             "return bool(self.signals)", f"{STOPS}::test_a_time_limit_stops_with_a_checkpoint_before_it_is_over"),
    Mutation("signals are caught during imports", "trainers/worker.py", "    stop = StopFlag(recorder)\n    stop.install()\n",
             "    stop = StopFlag(recorder)\n",
             "tests/fault/test_trainings.py::test_a_signal_while_paddle_is_imported_stops_all_ranks_with_a_checkpoint"),
    Mutation("out of memory is told from the text", "launcher/error_kinds.py", '"memory",', '"nothing",',
             f"{RESTARTS}::test_what_would_come_back_is_not_restarted"),
)  # fmt: skip


def copy_project(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)


def is_noticed(mutation: Mutation) -> bool:
    """Whether the test fails without the defence."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        copy_project(target)
        file = target / mutation.file
        text = file.read_text()
        if text.count(mutation.old) != 1:
            raise SystemExit(f"{mutation.file}: {mutation.old!r} is there {text.count(mutation.old)} times, not once")
        file.write_text(text.replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
        done = subprocess.run(command, cwd=target, env=env, capture_output=True, text=True, check=False, timeout=900)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutation.test}: pytest ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode == 1


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    missed = 0
    for mutation in MUTATIONS:
        if word in mutation.defence:
            noticed = is_noticed(mutation)
            missed += not noticed
            print(f"{'noticed' if noticed else 'MISSED '}  {mutation.defence}  ({mutation.test})", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
