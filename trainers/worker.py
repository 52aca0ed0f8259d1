"""What every rank runs, started by `paddle.distributed.launch`: all unfinished stages of a run, one after the other.

    worker.py --run-dir R --attempt-dir R/attempts/000 --node 0 --stages pretrain,finetune [--resume-from CHECKPOINT]
        [--chaos KIND:RANK@STAGE:STEP]...

Records, heartbeat and errors go to files of the attempt (engine/records.py). Exit codes: configs/errors.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from configs.chaos import parse_fault
from configs.errors import DataError, Exit
from configs.loader import load_resolved
from trainers.engine.records import Recorder
from trainers.engine.stacks import dump_on_crash, dump_on_request

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--attempt-dir", type=Path, required=True)
    parser.add_argument("--node", type=int, required=True)
    parser.add_argument("--stages", required=True, help="comma-separated, in order")
    parser.add_argument("--resume-from", type=Path, help="a checkpoint directory of the first unfinished stage")
    parser.add_argument("--chaos", type=parse_fault, action="append", default=[], help="a fault on purpose")
    return parser.parse_args()


class StopFlag:
    """Set by a signal to this rank or by the node's stop file; read at every step."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._signalled = False

    def install(self) -> None:
        """Catch the stop signals. To be called again after Paddle is imported: it installs handlers of its own."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """The work is done or saved: a signal has nothing left to ask for, and would break off the last talk with the other ranks.

        Paddle's launcher sends SIGTERM to the others as soon as the first rank has left with exit code 75.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def __call__(self) -> bool:
        return self._signalled or self._recorder.stop_requested()


def read_prepared(run_dir: Path) -> dict[str, Any]:
    """prepared.json of a run. Raises DataError when it is missing or damaged."""
    path = run_dir / "prepared.json"
    try:
        prepared: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read: {error}", "run ./run.sh train again: it prepares the data first"
        ) from error
    return prepared


def train(arguments: argparse.Namespace, recorder: Recorder, stop: StopFlag) -> int:
    """Run the stages; returns the exit code."""
    import paddle

    from trainers.engine.amp import choose_policy, device_capability
    from trainers.engine.chaos import make_chaos
    from trainers.engine.loop import Preempted
    from trainers.engine.ranks import join_ranks, leave_ranks
    from trainers.stages.runner import Run, StageRunner

    stop.install()
    dump_on_crash(arguments.attempt_dir / "errors" / f"rank-{recorder.rank}.native")
    recorder.enter("rendezvous")
    config = load_resolved(arguments.run_dir / "config.yaml")
    ranks = join_ranks()
    policy = choose_policy(config.amp, ranks.is_gpu, device_capability(ranks.is_gpu))
    recorder.record(
        "device",
        device=ranks.device,
        name=paddle.device.cuda.get_device_name() if ranks.is_gpu else "CPU",
        world_size=ranks.world_size,
        threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        amp=policy.reason,
    )
    prepared = read_prepared(arguments.run_dir)
    chaos = make_chaos(arguments.chaos, ranks.rank, arguments.run_dir)
    run = Run(arguments.run_dir, config, prepared, ranks, policy, recorder, stop, chaos, arguments.resume_from)
    try:
        for name in arguments.stages.split(","):
            StageRunner(run, name).run()
            gc.collect()
    except Preempted:
        stop.ignore()
        leave_ranks(ranks)
        recorder.record(
            "stage_end", stage=recorder.stage, step=recorder.step, reason="stopped", seconds=0.0, metrics={}
        )
        return Exit.PREEMPTED
    stop.ignore()
    leave_ranks(ranks)
    recorder.enter("done")
    return Exit.DONE


def main() -> int:
    arguments = parse_arguments()
    os.umask(0o077)
    rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
    recorder = Recorder(arguments.attempt_dir, arguments.node, rank)
    dump_on_request(arguments.attempt_dir / f"node-{arguments.node}" / f"rank-{rank}.stacks")
    stop = StopFlag(recorder)
    stop.install()
    try:
        return train(arguments, recorder, stop)
    except BaseException as error:  # noqa: BLE001  every end of a rank is reported
        traceback.print_exc()
        return recorder.failure(error)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's and Paddle's own shutdown, which can wait for peers that have failed.
    os._exit(code)
