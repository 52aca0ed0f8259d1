"""The console: events change the state, the state is drawn; golden screens from a recorded run with a fake clock."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher.console import ending, lines, output, screen, stage_rows, tables, text
from launcher.console.observer import LinesObserver
from launcher.console.state import MAX_MESSAGES, RunView, StageView, add_message, reduce
from launcher.protocol import Outcome, RootCause
from tests import console_replay as replay
from tests.goldens import check_golden

ROOT = Path(__file__).resolve().parents[2]


def played(until_s: float, ranks: int = 2) -> RunView:
    state = replay.first_view(ranks)
    for at, event in replay.events(ranks):
        if at > until_s:
            break
        state = reduce(state, event, replay.T0 + at)
    return state


def drawn(state: RunView, at: float, width: int, height: int, ascii_only: bool = False) -> str:
    sink = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if ascii_only else "utf-8")
    console = Console(file=sink, width=width, height=height, record=True, markup=False, highlight=False, emoji=False)
    console.print(screen.render(state, replay.T0 + at, width, height, ascii_only))
    return console.export_text()


class TestScreens:
    @pytest.mark.parametrize(
        ("name", "at", "ranks", "width", "height"),
        [
            ("screen-start", 0.1, 2, 80, 24),
            ("screen-prepare", 3.5, 2, 80, 24),
            ("screen-pretrain", 26.0, 2, 80, 24),
            ("screen-evaluate", 60.3, 2, 80, 24),
            ("screen-finetune-wide", 80.0, 2, 120, 40),
            ("screen-many-ranks", 80.0, 40, 120, 40),
            ("screen-narrow", 80.0, 2, 40, 20),
            ("screen-finished", 99.0, 2, 80, 24),
        ],
    )
    def test_golden(self, name, at, ranks, width, height):
        check_golden(f"{name}.txt", drawn(played(at, ranks), at, width, height))

    def test_golden_in_ascii(self):
        shown = drawn(played(26.0), 26.0, 80, 24, ascii_only=True)
        assert shown.isascii()
        check_golden("screen-ascii.txt", shown)

    @pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 24), (200, 50)])
    @pytest.mark.parametrize("ranks", [1, 2, 16, 500])
    def test_it_fits_the_terminal_at_every_moment(self, size, ranks):
        width, height = size
        state = replay.first_view(ranks)
        for number, (at, event) in enumerate(replay.events(ranks)):
            state = reduce(state, event, replay.T0 + at)
            if number % 4:
                continue
            state = add_message(
                state, "warning", f"at {at}: " + "long words that have to be folded somewhere " * 3, replay.T0 + at
            )
            rows = drawn(state, at, width, height).rstrip("\n").split("\n")
            assert len(rows) <= height
            assert max(map(len, rows)) <= width

    def test_a_late_heartbeat_is_red_and_worst_ranks_come_first(self):
        state = played(80.0, ranks=40)
        beat = {
            "rank": 17,
            "state": "running",
            "phase": "step",
            "stage": "finetune",
            "step": 3,
            "age_s": 31.0,
            "rss_bytes": 1,
        }
        state = reduce(state, {"type": "heartbeats", "node": 0, "ranks": [beat]}, replay.T0 + 80)
        rows = drawn(state, 80.0, 100, 40).split("\n")
        first = next(i for i, row in enumerate(rows) if row.startswith("rank ")) + 1
        assert rows[first].split()[:2] == ["0:17", "running"]
        assert "31.0s" in rows[first]

    def test_many_stages_show_the_window_around_the_running_one(self):
        stages = tuple(StageView(f"s{i}", status="done" if i < 30 else "pending") for i in range(60))
        shown = drawn(RunView(replay.first_view().header, replay.T0, stages), 1.0, 80, 24)
        assert [name for name in ("s28", "s29", "s30", "s59") if f"{name} " in shown] == ["s29", "s30"]

    @pytest.mark.parametrize("running", [0, 7, 29])
    def test_thirty_stages_of_groups_fit_a_small_terminal(self, running):
        """Groups of five: what is done or pending shares a line, the running one stands alone with the end of its name."""
        stages = tuple(
            StageView(
                f"finetune-init-pretrain-{i // 5}0000-seed{i % 5 + 1}",
                status="done" if i < running else "running" if i == running else "pending",
                metrics={"accuracy": 0.9 + i / 1000},
                seconds=60,
                step=1,
                group=f"finetune-init-pretrain-{i // 5}0000",
            )
            for i in range(30)
        )
        shown = drawn(RunView(replay.first_view().header, replay.T0, stages), 1.0, 80, 24)
        rows = [line for line in shown.split("\n") if "…" in line]
        assert len(shown.rstrip("\n").split("\n")) <= 24
        assert len([row for row in rows if f"0000-seed{running % 5 + 1}" in row]) == 1
        if running == 7:
            assert "5 stages done in 5m00s: accuracy 90.00 % to 90.40 %" in rows[0]
            assert "2 stages done in 2m00s: accuracy 90.50 % to 90.60 %" in rows[1]
            assert "2 stages pending" in rows[3]
        assert max(map(len, shown.split("\n"))) <= 80

    def test_control_sequences_in_messages_do_not_reach_the_terminal(self):
        state = add_message(replay.first_view(), "info", "evil \x1b[2J\x07 text", replay.T0)
        assert "evil  text" in drawn(state, 1.0, 80, 24)


class TestState:
    def test_the_first_step_is_no_part_of_the_rate(self):
        state = played(9.0)
        for at, step in ((30.0, 1), (31.0, 11), (32.0, 21)):
            state = reduce(state, replay.rank_event(replay.progress("pretrain", step, 61)), replay.T0 + at)
        (stage, _) = state.stages
        assert stage.steps_per_s == pytest.approx(10.0)
        assert stage.eta_s(replay.T0 + 33.0) == pytest.approx(3.0)  # 40 steps at 10 per second, one second ago

    def test_unknown_events_and_records_change_nothing(self):
        state = played(20.0)
        assert reduce(state, {"type": "novelty"}, replay.T0) is state
        assert reduce(state, replay.rank_event({"type": "novelty"}), replay.T0) is state

    def test_a_new_attempt_begins_with_fresh_ranks(self):
        state = reduce(played(20.0), {"type": "attempt_start", "attempt": 1, "nodes": [replay.node(3)]}, replay.T0 + 30)
        assert [view.state for view in state.ranks.values()] == ["starting"] * 3
        assert state.attempt == 1

    def test_a_failed_run_marks_its_running_stage(self):
        state = reduce(played(20.0), {"type": "run_end", "state": "failed", "exit_code": 1}, replay.T0 + 30)
        assert [stage.status for stage in state.stages] == ["failed", "pending"]

    def test_only_the_newest_messages_are_kept_and_none_twice_in_a_row(self):
        state = replay.first_view()
        for i in range(20):
            state = add_message(add_message(state, "info", f"m{i}", 1.0), "info", f"m{i}", 1.0)
        assert [message for _, _, message in state.messages] == [f"m{i}" for i in range(20 - MAX_MESSAGES, 20)]


class Clock:
    """A clock that the test sets."""

    now = replay.T0

    def __call__(self) -> float:
        return self.now


def plain(ranks: int = 2, events: Any = None) -> str:
    sink, clock = io.StringIO(), Clock()
    observer = LinesObserver(replay.first_view(ranks), sink, clock)
    for at, event in events or replay.events(ranks):
        clock.now = replay.T0 + at
        observer.on_event(event)
    return sink.getvalue()


class TestLines:
    def test_golden(self):
        check_golden("lines.txt", plain())

    def test_progress_is_thinned_out_by_time_and_the_last_step_is_always_there(self):
        events = [(20 + step / 10, replay.rank_event(replay.progress("pretrain", step, 100))) for step in range(1, 101)]
        steps = [line.split()[2] for line in plain(events=events).splitlines()]
        # a line every 5 s from t=20.1 to t=30.0
        assert steps == ["1/100", "51/100", "100/100"]

    def test_a_reader_who_has_gone_is_no_error(self):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as stream:
            observer = LinesObserver(replay.first_view(), stream)
            for _, event in replay.events():
                observer.on_event(event)
        assert observer.state.state == "finished"

    def test_a_full_disk_is_no_error(self):
        with open("/dev/full", "w") as stream:
            writer = output.LineWriter(stream)
            writer.write("x" * 10_000)
            writer.write("again")

    def test_head_ends_the_output_not_the_program(self):
        replay_in_a_pipe = (
            f"{shlex.quote(sys.executable)} -m tests.console_replay 500 | head -1; echo ${{PIPESTATUS[0]}}"
        )
        done = subprocess.run(["bash", "-c", replay_in_a_pipe], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == ["[run] attempt 0: 2 ranks on 127.0.0.1, first port 23456", "0"]
        assert done.stderr == ""

    @pytest.mark.parametrize(
        "environment", [{"TERM": "dumb"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}]
    )
    def test_poor_terminals(self, environment):
        done = on_a_terminal([sys.executable, "-m", "tests.console_replay", "500"], environment)
        assert b"Traceback" not in done
        assert (b"\x1b[?1049h" in done) == (environment["TERM"] != "dumb")
        if environment["TERM"] != "dumb":
            assert done.isascii()

    def test_no_color_is_honoured(self):
        done = on_a_terminal([sys.executable, "-m", "tests.console_replay", "500"], {"TERM": "xterm", "NO_COLOR": "1"})
        assert b"\x1b[32m" not in done
        assert b"\x1b[32m" in on_a_terminal([sys.executable, "-m", "tests.console_replay", "500"], {"TERM": "xterm"})


def on_a_terminal(argv: list[str], environment: dict[str, str]) -> bytes:
    """What the command writes to a real pseudo-terminal."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NO_COLOR", "TERM", "COLORTERM", "FORCE_COLOR")
    }
    master, slave = os.openpty()
    child = subprocess.Popen(argv, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env={**inherited, **environment})
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:
        pass  # the terminal's last user has gone
    os.close(master)
    assert child.wait(timeout=60) == 0
    return written


class TestEnding:
    CAUSE = RootCause(
        0,
        1,
        "finetune",
        17,
        "step",
        "ValueError: bad data row 17",
        "Traceback (most recent call last):\n  x\nValueError",
        1,
    )

    def test_a_failure_ends_with_traceback_root_cause_log_and_next_command(self):
        cause = RootCause(**{**self.CAUSE.__dict__, "log": "/runs/trec/attempts/000/node-0/rank-1.log"})
        assert ending.outcome_lines("trec", Outcome("failed", 1, cause)) == [
            "traceback of rank 1:",
            "Traceback (most recent call last):",
            "  x",
            "ValueError",
            "root cause: node 0 rank 1, stage finetune, step 17: ValueError: bad data row 17",
            "log: /runs/trec/attempts/000/node-0/rank-1.log",
            "next: ./run.sh resume trec (continues from the last checkpoint)",
        ]

    def test_a_stop_says_what_was_saved(self):
        saved = "run trec: stopped at step 120, saved; continue with: ./run.sh resume trec"
        assert ending.outcome_lines("trec", Outcome("stopped", 75), 120) == [saved]
        at_once = "run trec: stopped at once, no new checkpoint; continue from the last one with: ./run.sh resume trec"
        assert ending.outcome_lines("trec", Outcome("stopped", 130)) == [at_once]

    def test_a_table_shows_text_as_it_is(self):
        sink = io.StringIO()
        table = tables.make_table(
            "T", [tables.Column("a"), tables.Column("b", right=True)], [("[red]x[/red]", "1"), (":smile:", "22")]
        )
        Console(file=sink, width=60, markup=False, emoji=False).print(table)
        assert "[red]x[/red]" in sink.getvalue()
        assert ":smile:" in sink.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (3599, "59m59s"),
        (7500, "2h05m"),
        (360000, "4d04h"),
        (-3, "0s"),
    ],
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (812e6, "812 MB"), (1.34e9, "1.3 GB")]
)
def test_sizes(value, shown):
    assert text.size(value) == shown


def test_lines_are_a_pure_function_of_event_and_state():
    event = replay.rank_event(replay.progress("finetune", 5, 90))
    state = played(50.0)
    first = lines.describe(event, state, lines.Thinning(), replay.T0 + 50)
    assert first == lines.describe(event, state, lines.Thinning(), replay.T0 + 50)
    assert len(first[0]) == 1
    assert lines.describe(event, state, first[1], replay.T0 + 51)[0] == []


def test_figures_of_a_finished_stage_are_left_out_whole():
    """Mark, name and spaces take 13 of the columns."""
    metrics = {"loss": 0.25, "accuracy": 0.5, "perplexity": 8.5, "mlm_accuracy": 0.25}
    stage = StageView("pretrain-1", status="done", step=6, metrics=metrics)
    begin = "done at step 6: accuracy 50.00 %"
    for width, expected in (
        (13 + len(begin) + 17, f"{begin}, perplexity 8.50"),
        (13 + len(begin) + 16, begin),
        (30, "done at step 6"),
    ):
        console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
        for line in stage_rows.render([stage], 0.0, width, stage_rows.Glyphs()):
            console.print(line)
        assert console.export_text().rstrip().endswith(expected), width
