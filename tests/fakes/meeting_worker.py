"""A rank without Paddle that meets its peers over files at every step, saves, resumes, and has the real worker's records, signals,
stacks and --chaos. Beside them `--do RANK:WHAT=VALUE` misbehaves as a fault of the run's own would."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from configs.chaos import parse_fault
from configs.errors import CannotWriteError, ConfigError, DataError, UserError
from trainers.engine.chaos import make_chaos
from trainers.engine.records import Recorder
from trainers.engine.stacks import dump_on_crash, dump_on_request
from trainers.worker import StopFlag

PREEMPTED = 75
ERRORS: dict[str, type[UserError]] = {"config": ConfigError, "data": DataError, "write": CannotWriteError}
parser = argparse.ArgumentParser()
parser.add_argument("--run-dir", type=Path)
parser.add_argument("--attempt-dir", type=Path)
parser.add_argument("--node", type=int)
parser.add_argument("--stages")
parser.add_argument("--resume-from", type=Path)
parser.add_argument("--ranks", type=int, default=2)
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--step-s", type=float, default=0.02)
parser.add_argument("--save-every", type=int, default=4)
parser.add_argument("--evaluate-s", type=float, default=0.0)
parser.add_argument("--give-up-s", type=float, default=25.0)
parser.add_argument("--chaos", type=parse_fault, action="append", default=[])
parser.add_argument("--do", action="append", default=[])
options = parser.parse_args()
rank = int(os.environ["PADDLE_TRAINER_ID"])
actions = dict(item.split(":", 1)[1].partition("=")[::2] for item in options.do if item.startswith(f"{rank}:"))
recorder = Recorder(options.attempt_dir, options.node, rank)
stage = options.run_dir / "finetune"


def all_reduce(number: int, stop: bool = False) -> bool:
    """Meets the peers for the `number`th time; whether any of them wants to stop."""
    partial = options.attempt_dir / f"partial-{rank}"
    partial.write_text("stop" if stop else "go")
    partial.rename(options.attempt_dir / f"meet-{number}-{rank}")
    paths = [options.attempt_dir / f"meet-{number}-{other}" for other in range(options.ranks)]
    give_up = time.monotonic() + options.give_up_s
    while not all(path.exists() for path in paths):
        if time.monotonic() > give_up:
            raise ConnectionError("gloo: Timed out waiting for a peer")
        time.sleep(0.005)
    return any(path.read_text() == "stop" for path in paths)


def enter(phase: str, step: int = 0) -> None:
    recorder.enter(phase, step)
    if actions.get("hang") == phase:
        time.sleep(300)
    if actions.get("pause") == phase:
        time.sleep(1.5)


def save(step: int) -> None:
    """What counts as a committed checkpoint, by rank 0."""
    enter("save", step)
    if rank == 0:
        directory = stage / "checkpoints" / f"step-{step:08d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "manifest.json").write_text("{}")
        recorder.record("checkpoint", stage="finetune", step=step, path=str(directory), bytes=1, seconds=0.0)


def evaluate(step: int) -> None:
    """Batches with heartbeats, of rank 0 alone."""
    recorder.enter("evaluate", step)
    until = time.monotonic() + options.evaluate_s
    while rank == 0 and time.monotonic() < until:
        time.sleep(0.05)
        recorder.beat()


def main() -> int:
    dump_on_request(options.attempt_dir / f"node-{options.node}" / f"rank-{rank}.stacks")
    stop = StopFlag(recorder)
    stop.install()
    enter("import")
    dump_on_crash(options.attempt_dir / "errors" / f"rank-{rank}.native")
    enter("rendezvous")
    all_reduce(-1)
    recorder.stage = "finetune"
    enter("load")
    done = sorted(int(path.name[5:]) for path in stage.glob("checkpoints/step-*"))
    step = done[-1] if done else 0
    recorder.record("stage_start", stage="finetune", total_steps=options.steps, start_step=step)
    recorder.enter("first_step", step)
    chaos = make_chaos(options.chaos, rank, options.run_dir)
    while step < options.steps:
        if "error" in actions and step == 3:
            raise ERRORS[actions["error"]]("train.tsv:3: no label", "mend the row")
        recorder.works_on(lambda: {"ids": [7], "text": "samples 7 (train.tsv:9)"})
        chaos.begin_step("finetune", step)
        with recorder.waiting_for_peers():
            if actions.get("stop-waiting") == str(step):
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGSTOP)
            stopping = all_reduce(step, stop())
        if stopping:
            save(step)
            return PREEMPTED
        time.sleep(options.step_s)
        step += 1
        recorder.enter("step", step)
        if step == options.steps // 2 and options.evaluate_s:
            evaluate(step)
            recorder.enter("step", step)
        if step % options.save_every == 0:
            save(step)
            recorder.enter("step", step)
    stage.mkdir(exist_ok=True)
    (stage / "done.json").write_text(f'{{"step": {step}}}')
    recorder.enter("done", step)
    return 0


try:
    code = main()
except Exception as error:  # noqa: BLE001  every failure is recorded
    code = recorder.failure(error)
sys.stdout.flush()
os._exit(code)
