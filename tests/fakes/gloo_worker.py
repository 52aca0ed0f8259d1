"""A small real rank: all-reduces over Paddle's process group at every step and can fail as `--do RANK:WHAT` says."""

import argparse
import contextlib
import json
import os
import signal
import socket
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
parser.add_argument("--do", default="")
options = parser.parse_args()
rank, world = int(os.environ["PADDLE_TRAINER_ID"]), int(os.environ["PADDLE_TRAINERS_NUM"])
node_dir = options.attempt_dir / f"node-{options.node}"
place = {"phase": "import", "stage": "finetune", "step": 0}


def enter(phase: str, step: int = 0) -> None:
    place.update(phase=phase, step=step)
    with open(node_dir / f"rank-{rank}.records.jsonl", "a") as file:
        file.write(json.dumps({"t": time.time(), "type": "phase", **place}) + "\n")


def wait_for_store() -> None:
    """Paddle's own retry waits 3 s when the store of rank 0 does not listen yet."""
    host, port = os.environ["PADDLE_MASTER"].split(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        time.sleep(0.05)


def main() -> int:
    enter("import")
    import paddle
    import paddle.distributed as dist

    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    enter("rendezvous")
    if world > 1:
        if rank > 0:
            wait_for_store()
        dist.init_parallel_env()
    total = 0.0
    for step in range(1, options.steps + 1):
        enter("step", step)
        if options.do == f"{rank}:raise" and step == 3:
            raise ValueError("bad data row 17")
        stop = stopped or (options.attempt_dir / "stop").exists()
        values = paddle.to_tensor([float(rank + 1), float(bool(stop))])
        if world > 1:
            dist.all_reduce(values)
        total += float(values[0].item())
        time.sleep(0.05)
        if float(values[1].item()) > 0:
            return 75
    (options.run_dir / f"total-{rank}").write_text(str(total))
    enter("done", options.steps)
    return 0


try:
    code = main()
except Exception as error:
    fields = {"rank": rank, "node": options.node, "t": time.time(), "type": type(error).__name__, "message": str(error)}
    fields |= {"traceback": traceback.format_exc(), "collective": not isinstance(error, ValueError), "exit_code": 1}
    (options.attempt_dir / "errors" / f"rank-{rank}.json").write_text(json.dumps({**place, **fields}))
    raise
os._exit(code) if code else sys.exit(code)
