"""Stands in for `python -m paddle.distributed.launch` where its import time is too long: starts N shims as it does.

Each in a session of its own, with PADDLE_TRAINER_ID; it stops all within 3 s of the first that fails, and orphans all
when it is killed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--nproc_per_node", type=int, required=True)
parser.add_argument("--log_dir", required=True)
parser.add_argument("--start_port")
parser.add_argument("--ips")
parser.add_argument("--host")
parser.add_argument("script")
parser.add_argument("arguments", nargs=argparse.REMAINDER)
options = parser.parse_args()
first_rank = int(os.environ.get("FAKE_FIRST_RANK", "0"))
os.makedirs(options.log_dir, exist_ok=True)
workers = []
for local_rank in range(options.nproc_per_node):
    with open(f"{options.log_dir}/workerlog.{local_rank}", "ab") as log:
        env = {**os.environ, "PADDLE_TRAINER_ID": str(first_rank + local_rank)}
        command = [sys.executable, "-u", options.script, *options.arguments]
        workers.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True))


def stop_all(*_: object) -> None:
    for worker in workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGTERM)


signal.signal(signal.SIGTERM, stop_all)
while any(worker.poll() is None for worker in workers):
    if any(worker.poll() for worker in workers):
        stop_all()
        time.sleep(3)
        for worker in workers:
            worker.kill()
    time.sleep(0.05)
sys.exit(next((worker.returncode % 256 for worker in workers if worker.returncode), 0))
