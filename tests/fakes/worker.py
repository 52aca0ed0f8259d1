"""A rank without Paddle: writes the records, heartbeats and error files of a real one, and misbehaves as `--do
RANK:WHAT` says."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--run-dir", type=Path)
parser.add_argument("--attempt-dir", type=Path)
parser.add_argument("--node", type=int)
parser.add_argument("--stages")
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--step-s", type=float, default=0.02)
parser.add_argument("--do", action="append", default=[])
options = parser.parse_args()
rank = int(os.environ["PADDLE_TRAINER_ID"])
node_dir = options.attempt_dir / f"node-{options.node}"
actions = [item.split(":", 1)[1] for item in options.do if item.startswith(f"{rank}:")]
stop_signals: list[int] = []
place = {"phase": "import", "stage": "finetune", "step": 0}


def record(**fields: object) -> None:
    with open(node_dir / f"rank-{rank}.records.jsonl", "a") as file:
        file.write(json.dumps({"t": time.time(), "rank": rank, **fields}) + "\n")


def enter(phase: str, step: int = 0) -> None:
    place.update(phase=phase, step=step)
    beat = {"pid": os.getpid(), "t": time.time(), "rss_bytes": 1, "device_bytes": 0, **place}
    path = node_dir / f"rank-{rank}.heartbeat"
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(json.dumps(beat).encode().ljust(512))
    record(type="phase", **place)


def write_error(error: BaseException, collective: bool) -> None:
    fields = {"rank": rank, "node": options.node, "t": time.time(), "type": type(error).__name__, "message": str(error)}
    fields |= {
        "traceback": traceback.format_exc(),
        "collective": collective,
        "exit_code": 1,
        "user_error": False,
        "hint": "",
    }
    (options.attempt_dir / "errors" / f"rank-{rank}.json").write_text(json.dumps({**place, **fields}))


def misbehave() -> None:
    for action in actions:
        what, _, argument = action.partition("=")
        if what == "raise":
            raise ValueError(argument)
        if what == "collective":
            time.sleep(float(argument))
            raise ConnectionError("gloo: Connection closed by peer")
        if what == "exit":
            os._exit(int(argument))
        if what == "kill":
            os.kill(os.getpid(), int(argument))
        if what == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            time.sleep(300)


def main() -> int:
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, lambda number, _: stop_signals.append(number))
    enter("rendezvous")
    if "stuck" in actions:
        time.sleep(300)
    record(type="stage_start", stage="finetune", total_steps=options.steps)
    for step in range(1, options.steps + 1):
        enter("step", step)
        if step == 3:
            misbehave()
        time.sleep(options.step_s)
        if (options.attempt_dir / "stop").exists() or stop_signals:
            record(type="checkpoint", stage="finetune", step=step, path="x", bytes=1, seconds=0.1)
            time.sleep(0.3 * rank)
            return 75
    record(type="progress", stage="finetune", step=options.steps, total_steps=options.steps)
    enter("done", options.steps)
    return 0


try:
    code = main()
except Exception as error:  # noqa: BLE001  every failure is recorded
    traceback.print_exc()
    write_error(error, isinstance(error, ConnectionError))
    sys.exit(1)
sys.exit(code)
