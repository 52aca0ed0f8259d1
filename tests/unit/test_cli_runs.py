"""runs, status, logs, stop, and the refusals of train, on run directories made by the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.processes import ProcessId
from configs.errors import Exit
from configs.loader import dump_resolved, load_config
from launcher import continuation
from launcher.overview import describe
from launcher.request import Request, absolute, resolve_run
from launcher.rundir import RunDirectory
from tests.cli_runs import ROOT, launcher, make_run, write_config, write_json

EVALUATION = {"accuracy": 0.962, "macro_f1": 0.95, "loss": 0.15, "majority_accuracy": 0.25, "majority_macro_f1": 0.07}
DONE = {"step": 456, "seconds": 62.0, "metrics": {"validation_accuracy": 0.95}}


class TestRuns:
    def test_none_yet(self, tmp_path):
        done = launcher("runs", runs_dir=tmp_path)
        assert done.returncode == 0
        assert done.stdout.endswith("yet\nnext: ./run.sh quickstart\n")

    def test_a_run_whose_process_is_gone_is_interrupted(self, tmp_path):
        make_run(tmp_path, "dead", "running")
        make_run(tmp_path, "alive", "running", ProcessId.current())
        make_run(tmp_path, "recycled", "running", ProcessId(ProcessId.current().pid, ProcessId.current().start - 1))
        write_json(make_run(tmp_path, "done", "finished") / "finetune" / "eval.json", EVALUATION)
        done = launcher("runs", "--json", runs_dir=tmp_path)
        states = {run["name"]: run["state"] for run in json.loads(done.stdout)}
        assert states == {"dead": "interrupted", "alive": "running", "recycled": "interrupted", "done": "finished"}
        table = launcher("runs", runs_dir=tmp_path).stdout
        row = next(line.split() for line in table.splitlines() if " done " in line)
        assert row[:7] == ["done", "finished", "finetune", "120/456", "accuracy", "96.20", "%"]


class TestStatus:
    def test_of_a_failed_run_names_the_root_cause(self, tmp_path):
        cause = {
            "node": 0,
            "rank": 1,
            "stage": "finetune",
            "step": 17,
            "phase": "step",
            "what": "ValueError: bad row",
            "traceback": "",
        }
        cause |= {"exit_code": 1, "log": "/runs/x/rank-1.log", "line": "..."}
        make_run(tmp_path, "x", "failed", root_cause=cause, exit_code=1)
        done = launcher("status", "x", runs_dir=tmp_path)
        assert done.returncode == 0
        assert "root cause   node 0 rank 1, stage finetune, step 17: ValueError: bad row" in done.stdout
        assert "/runs/x/rank-1.log" in done.stdout
        assert done.stdout.endswith("next: ./run.sh resume x\n")

    def test_json(self, tmp_path):
        write_json(make_run(tmp_path, "x", "finished") / "finetune" / "done.json", DONE)
        status = json.loads(launcher("status", "x", "--json", runs_dir=tmp_path).stdout)
        assert (status["state"], status["step"], status["total_steps"]) == ("finished", 120, 456)
        assert status["results"][0]["step"] == 456

    def test_an_unknown_run_lists_those_that_there_are(self, tmp_path):
        make_run(tmp_path, "trec", "finished")
        done = launcher("status", "tric", runs_dir=tmp_path)
        assert done.returncode == Exit.USAGE
        assert "trec" in done.stderr


class TestLogs:
    def test_every_rank_with_its_prefix_and_broken_bytes_replaced(self, tmp_path):
        make_run(tmp_path, "x", "finished")
        lines = launcher("logs", "x", runs_dir=tmp_path, PYTHONUTF8="1").stdout.splitlines()
        assert lines == [
            f"0:{r} | {text}" for r in (0, 1) for text in (f"rank {r} begins", f"rank {r} café", "\ufffd broken")
        ]

    def test_one_rank_of_one_attempt(self, tmp_path):
        run = make_run(tmp_path, "x", "finished")
        later = run / "attempts" / "001" / "node-0"
        later.mkdir(parents=True)
        (later / "rank-1.log").write_text("second try, no newline at the end")
        assert launcher("logs", "x", runs_dir=tmp_path).stdout == "0:1 | second try, no newline at the end\n"
        first = launcher("logs", "x", "--attempt", "0", "--rank", "1", runs_dir=tmp_path).stdout
        assert first.startswith("0:1 | rank 1 begins\n")
        assert "0:0" not in first

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--rank", "7"), "node:rank with a log: 0:0, 0:1"),
            (("--attempt", "3"), "--attempt 3: not there; attempts: 0"),
        ],
    )
    def test_what_is_not_there_is_said(self, tmp_path, arguments, said):
        make_run(tmp_path, "x", "finished")
        done = launcher("logs", "x", *arguments, runs_dir=tmp_path)
        assert done.returncode == Exit.USAGE
        assert said in done.stderr

    def test_following_ends_with_the_run_and_misses_nothing(self, tmp_path):
        log = tmp_path / "x" / "attempts" / "000" / "node-0" / "rank-0.log"
        code = "import sys, time; time.sleep(.5)\nwith open(sys.argv[1], 'a') as log:\n"
        code += " for i in range(20):\n  print('line', i, file=log, flush=True); time.sleep(.05)\n print('no newline', end='', file=log)"
        with subprocess.Popen([sys.executable, "-c", code, str(log)]) as supervisor:
            identity = ProcessId.of(supervisor.pid)
            make_run(tmp_path, "x", "running", identity)
            done = launcher("logs", "x", "-f", "--rank", "0", runs_dir=tmp_path)
        assert done.stdout.splitlines()[3:] == [*(f"0:0 | line {i}" for i in range(20)), "0:0 | no newline"]


FAKE_SUPERVISOR = """
import json, signal, sys, time
def stop(signum, frame):
    status = json.load(open(sys.argv[1])) | {"state": "stopped", "step": 121}
    json.dump(status, open(sys.argv[1], "w"))
    sys.exit(75)
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "deaf" else stop)
print("ready", flush=True)
time.sleep(60)
"""


class TestStop:
    def test_it_asks_the_recorded_process_and_waits(self, tmp_path):
        command = [sys.executable, "-c", FAKE_SUPERVISOR, str(tmp_path / "x" / "status.json"), "hearing"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
            assert supervisor.stdout is not None
            assert supervisor.stdout.readline() == "ready\n"
            make_run(tmp_path, "x", "running", ProcessId.of(supervisor.pid))
            done = launcher("stop", "x", runs_dir=tmp_path)
            assert supervisor.wait(timeout=10) == Exit.PREEMPTED
        assert done.returncode == 0
        assert done.stdout.splitlines()[1:] == ["run x: stopped at step 121", "next: ./run.sh resume x"]

    def test_another_process_with_that_pid_is_never_signalled(self, tmp_path):
        command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stranger:
            assert stranger.stdout is not None
            stranger.stdout.readline()
            identity = ProcessId.of(stranger.pid)
            assert identity is not None
            make_run(tmp_path, "x", "running", ProcessId(identity.pid, identity.start + 1))
            done = launcher("stop", "x", runs_dir=tmp_path)
            assert stranger.poll() is None
            stranger.kill()
        assert done.returncode == Exit.USAGE
        assert "run 'x' is not running here (state: interrupted)" in done.stderr


def started_run(tmp_path: Path, *overrides: str) -> Path:
    """The run `tiny` as if it had been launched and stopped; returns the config's path."""
    path = write_config(tmp_path / "data")
    run = make_run(tmp_path, "tiny", "stopped")
    (run / "config.yaml").write_text(dump_resolved(absolute(load_config(path, overrides))))
    write_json(run / "plan.json", {"world_size": 2, "threads_per_rank": 3, "stages": [{"name": "finetune"}]})
    return path


class TestContinuation:
    def test_never_refuses_a_name_that_is_taken_and_deletes_nothing(self, tmp_path):
        path = started_run(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        done = launcher("train", str(path), "--resume", "never", runs_dir=tmp_path)
        assert done.returncode == Exit.USAGE
        assert "--name tiny-2" in done.stderr
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("work", ["finetune/checkpoints/step-00000005", "finetune/done.json"])
    def test_only_what_was_trained_binds_the_config(self, tmp_path, work):
        assert not continuation.has_work(tmp_path)
        (tmp_path / "finetune" / "checkpoints").mkdir(parents=True)
        (tmp_path / "finetune" / "metrics.jsonl").touch()
        assert not continuation.has_work(tmp_path)
        (tmp_path / work).mkdir()
        assert continuation.has_work(tmp_path)

    def test_a_changed_config_is_refused_with_a_diff(self, tmp_path):
        path = started_run(tmp_path)
        (tmp_path / "tiny" / "finetune" / "checkpoints" / "step-00000005").mkdir(parents=True)
        done = launcher("train", str(path), "finetune.lr=1e-4", "finetune.epochs=2", runs_dir=tmp_path)
        assert done.returncode == Exit.USAGE
        assert "stages.finetune.epochs: 1 -> 2\n" in done.stderr
        assert "stages.finetune.lr: 2e-05 -> 0.0001\n" in done.stderr
        assert "next: ./run.sh resume tiny" in done.stderr
        again = launcher("plan", str(path), "finetune.lr=1e-4", "--rerun", "finetune", runs_dir=tmp_path)
        assert "--rerun; stages.finetune.lr: 2e-05 -> 0.0001" in " ".join(again.stdout.split()), again.stderr

    def test_plan_says_what_is_trained_anew_and_moves_nothing(self, tmp_path):
        path = started_run(tmp_path)
        write_json(tmp_path / "tiny" / "finetune" / "done.json", DONE)
        before = sorted(tmp_path.rglob("*"))
        done = launcher("plan", str(path), "finetune.lr=1e-4", runs_dir=tmp_path)
        said = " ".join(done.stdout.split())
        assert "stage 'finetune': trained anew (stages.finetune.lr: 2e-05 -> 0.0001)" in said, done.stderr
        assert "the old result is kept in superseded/finetune-001" in said
        assert sorted(tmp_path.rglob("*")) == before
        refused = launcher("prepare", str(path), "finetune.lr=1e-4", runs_dir=tmp_path)
        assert (refused.returncode, "prepare changes nothing that was trained" in refused.stderr) == (Exit.USAGE, True)

    def test_what_only_changes_the_records_may_change(self, tmp_path):
        path = started_run(tmp_path)
        done = launcher("plan", str(path), "train.log_every=3", "launch.stop_grace_s=9", runs_dir=tmp_path)
        assert done.returncode == 0, done.stderr

    def test_ranks_and_threads_are_kept(self, tmp_path):
        path = started_run(tmp_path)
        kept = json.loads(launcher("plan", str(path), "--json", runs_dir=tmp_path, CUDA_VISIBLE_DEVICES="").stdout)
        assert (kept["world_size"], kept["threads_per_rank"]) == (2, 3)
        other = json.loads(
            launcher(
                "plan", str(path), "--nproc-per-node", "1", "--json", runs_dir=tmp_path, CUDA_VISIBLE_DEVICES=""
            ).stdout
        )
        assert other["world_size"] == 1
        assert other["threads_per_rank"] == other["cores"]

    def test_a_finished_run_shows_its_results(self, tmp_path):
        path = started_run(tmp_path)
        write_json(tmp_path / "tiny" / "finetune" / "done.json", DONE)
        write_json(tmp_path / "tiny" / "finetune" / "eval.json", EVALUATION)
        done = launcher("train", str(path), runs_dir=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "run tiny: finished already, nothing to do" in done.stdout
        row = next(line.split() for line in done.stdout.splitlines() if "accuracy" in line)
        assert row == ["finetune", "test", "accuracy", "96.20", "%", "1m02s"]

    def test_a_finished_quickstart_shows_the_comparison(self, tmp_path):
        for stage, accuracy in (("baseline", 0.81), ("pretrain", None), ("finetune", 0.86)):
            write_json(tmp_path / "quickstart" / stage / "done.json", DONE)
            if accuracy is not None:
                write_json(tmp_path / "quickstart" / stage / "eval.json", EVALUATION | {"accuracy": accuracy})
        done = launcher("quickstart", runs_dir=tmp_path)
        assert done.returncode == 0, done.stderr
        rows = [line.split("  ") for line in done.stdout.splitlines() if "%" in line]
        cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        assert cells == [
            ["majority class", "25.00 %", "7.00 %"],
            ["fine-tuned only", "81.00 %", "95.00 %"],
            ["further pre-trained, then fine-tuned", "86.00 %", "95.00 %"],
        ]
        assert "training time of all stages: 3m06s" in done.stdout
        assert "./run.sh quickstart --name quickstart-2" in done.stdout

    def test_a_stage_whose_start_is_not_finished_is_refused(self, tmp_path):
        done = launcher("plan", "quickstart", "--stage", "finetune", runs_dir=tmp_path)
        assert done.returncode == Exit.USAGE
        assert "it starts from stage 'pretrain', which run 'quickstart' has not finished" in done.stderr

    def test_a_run_that_is_held_is_refused(self, tmp_path):
        path = write_config(tmp_path / "data")
        run = tmp_path / "tiny"
        run.mkdir()
        code = f"import fcntl, os; f = open({str(run / 'lock')!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            done = launcher("train", str(path), runs_dir=tmp_path)
            holder.kill()
        assert done.returncode == Exit.USAGE
        assert "run 'tiny' is held by another launch" in done.stderr


def test_prepare_reads_the_data_and_plan_then_knows_the_steps(tmp_path):
    path = write_config(tmp_path / "data")
    begin = time.time()
    done = launcher("prepare", str(path), runs_dir=tmp_path, BERT4DOC_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny" / "prepared.json").stat().st_mtime >= begin - 1
    assert "next: ./run.sh train" in done.stdout
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert table["finetune:"] == ["training", "rows", "by", "class:", "minus", "10,", "plus", "10"]
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("  finetune ")]
    # "a good day number 7": 5 pieces and two special tokens; texts differ in the number alone, and 8 numbers are in test too
    assert rows[0] == ["finetune", "20", "4", "8", "3", "7.0", "7", "0.0%"]
    assert rows[1][:3] + rows[1][4:5] + rows[1][6:] == ["finetune", "0", "0", "8", "0"]
    plan = json.loads(launcher("plan", str(path), "--json", runs_dir=tmp_path).stdout)
    # 24 rows, 4 of them held out, 8 per step
    assert (plan["stages"][0]["steps"]["num_examples"], plan["stages"][0]["steps"]["total_steps"]) == (20, 3)
    other = json.loads(launcher("plan", str(path), "--json", "data.validation=2", runs_dir=tmp_path).stdout)
    assert other["stages"][0]["steps"]["num_examples"] is None


def test_prepare_passes_on_what_is_wrong_with_the_data(tmp_path):
    path = write_config(tmp_path / "data")
    (tmp_path / "data" / "train.tsv").unlink()
    done = launcher("prepare", str(path), runs_dir=tmp_path, BERT4DOC_CACHE=str(tmp_path / "cache"))
    assert done.returncode == Exit.DATA
    assert "train.tsv" in done.stderr
    assert "Traceback" not in done.stderr


def test_resume_runs_the_stages_that_were_asked_for(tmp_path):
    path = write_config(tmp_path / "data")
    run = make_run(tmp_path, "two", "stopped")
    stages = "  pretrain: {max_steps: 1}\n  finetune: {epochs: 1, init: model}\n"
    path.write_text(path.read_text().split("  finetune:")[0] + stages)
    (run / "config.yaml").write_text(dump_resolved(absolute(load_config(path, (), "two"))))
    prepared = resolve_run(RunDirectory(run), Request(str(path), runs_dir=tmp_path))
    assert [stage.name for stage in prepared.plan.stages] == ["finetune"]


def test_an_overview_knows_stages_of_earlier_launches(tmp_path):
    run = make_run(tmp_path, "x", "finished")
    for stage in ("baseline", "finetune"):
        write_json(run / stage / "done.json", DONE)
    assert [result["stage"] for result in describe(RunDirectory(run)).results] == ["baseline", "finetune"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a second core to take away")
def test_quickstart_says_when_there_is_only_one_core(tmp_path):
    write_json(tmp_path / "quickstart" / "baseline" / "done.json", DONE)
    write_json(tmp_path / "quickstart" / "pretrain" / "done.json", DONE)
    write_json(tmp_path / "quickstart" / "finetune" / "done.json", DONE)
    core = str(min(os.sched_getaffinity(0)))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BERT4DOC_RUNS": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = ["taskset", "-c", core, sys.executable, "-m", "launcher", "quickstart"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("quickstart: this machine has 1 core, so 1 rank is used instead of 2\n")


class TestStartFromACheckpoint:
    def checkpoint(self, tmp_path: Path, run: str, stage: str = "finetune") -> str:
        path = tmp_path / run / stage / "checkpoints" / "step-00000007"
        write_json(path / "manifest.json", {})
        return str(path)

    def test_of_this_run_reaches_the_ranks(self, tmp_path):
        path, checkpoint = started_run(tmp_path), self.checkpoint(tmp_path, "tiny")
        plan = json.loads(launcher("plan", str(path), "--resume", checkpoint, "--json", runs_dir=tmp_path).stdout)
        assert plan["processes"][0]["argv"][-4:] == ["--stages", "finetune", "--resume-from", checkpoint]

    def test_of_another_run_of_a_finished_stage_or_of_no_stage_is_refused(self, tmp_path):
        path = started_run(tmp_path)
        for checkpoint, said in (
            (self.checkpoint(tmp_path, "other"), "not a checkpoint of run 'tiny'"),
            (
                self.checkpoint(tmp_path, "tiny", "pretrain"),
                "it belongs to stage 'pretrain', which is not to run here (finetune)",
            ),
        ):
            done = launcher("plan", str(path), "--resume", checkpoint, runs_dir=tmp_path)
            assert (done.returncode, said in done.stderr) == (Exit.USAGE, True), done.stderr
        checkpoint = self.checkpoint(tmp_path, "tiny")
        write_json(tmp_path / "tiny" / "finetune" / "done.json", DONE)
        done = launcher("plan", str(path), "--resume", checkpoint, runs_dir=tmp_path)
        assert "stage 'finetune' is finished" in done.stderr


def test_finished_stages_are_not_repeated(tmp_path):
    for stage in ("baseline", "pretrain"):
        write_json(tmp_path / "quickstart" / stage / "done.json", DONE)
    plan = json.loads(launcher("plan", "quickstart", "--json", runs_dir=tmp_path).stdout)
    assert [stage["finished"] for stage in plan["stages"]] == [True, True, False]
    assert plan["processes"][0]["argv"][-2:] == ["--stages", "finetune"]
    write_json(tmp_path / "quickstart" / "finetune" / "done.json", DONE)
    assert "none: every stage is finished" in launcher("plan", "quickstart", runs_dir=tmp_path).stdout
