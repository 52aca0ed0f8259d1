"""Real trainings for tests: a prepared run directory, and ranks started by Paddle alone, without the project's launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.loader import dump_resolved, load_config

ROOT = Path(__file__).resolve().parents[2]
SEAM_WORKER = ROOT / "tests" / "fakes" / "seam_worker.py"
TIMING = ("samples_per_s", "tokens_per_s", "mfu", "time_s")
TIMEOUT_S = 240


def rank_environment(**more: str) -> dict[str, str]:
    """What the launcher gives to ranks on this kind of machine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "FLAGS_", "MASTER_"))}
    own = {"PYTHONPATH": str(ROOT), "MKL_DEBUG_CPU_TYPE": "5", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**kept, **own, **more}


def make_run(directory: Path, config: Mapping[str, Any], cache: Path) -> Path:
    """A run directory with its resolved config and prepared.json."""
    directory.mkdir(parents=True, mode=0o700)
    source = directory.parent / f"{directory.name}.yaml"
    source.write_text(yaml.safe_dump({**config, "name": directory.name}, sort_keys=False))
    (directory / "config.yaml").write_text(dump_resolved(load_config(source)))
    command = [sys.executable, "-m", "trainers.prepare", "--run-dir", str(directory)]
    done = subprocess.run(
        command, cwd=ROOT, env=rank_environment(BERT4DOC_CACHE=str(cache)), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Ranks:
    """One launch of the ranks of a run, in an attempt directory of its own.

    `seams` are told to the worker's stand-in (tests/fakes/seam_worker.py), which is used only then; `chaos` are faults of the
    worker itself (--chaos).
    """

    def __init__(
        self,
        run: Path,
        world_size: int,
        stages: str,
        *seams: str,
        resume_from: Path | None = None,
        chaos: tuple[str, ...] = (),
    ) -> None:
        attempts = run / "attempts"
        number = len(list(attempts.iterdir())) if attempts.is_dir() else 0
        self.world_size = world_size
        self.directory = attempts / f"{number:03d}"
        self.directory.mkdir(parents=True)
        worker = SEAM_WORKER if seams else ROOT / "trainers" / "worker.py"
        resume = [] if resume_from is None else ["--resume-from", str(resume_from)]
        command = [
            *(sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(world_size)),
            *("--log_dir", str(self.directory / "paddle"), str(worker)),
            *("--run-dir", str(run), "--attempt-dir", str(self.directory), "--node", "0", "--stages", stages, *resume),
            *(part for fault in chaos for part in ("--chaos", fault)),
        ]
        with open(self.directory / "output.log", "wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=rank_environment(TEST_SEAMS=" ".join(seams)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def heartbeat(self, rank: int) -> dict[str, Any]:
        """The last heartbeat, {} before the first."""
        with contextlib.suppress(OSError, ValueError):
            beat: dict[str, Any] = json.loads((self.directory / "node-0" / f"rank-{rank}.heartbeat").read_bytes())
            return beat
        return {}

    def records(self, kind: str, rank: int = 0) -> list[dict[str, Any]]:
        """Records of one type."""
        path = self.directory / "node-0" / f"rank-{rank}.records.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["type"] == kind]

    def error(self, rank: int) -> dict[str, Any] | None:
        """What the rank said about its failure."""
        path = self.directory / "errors" / f"rank-{rank}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def output(self) -> str:
        """The end of what the launcher and each rank printed."""
        paths = [self.directory / "output.log", *sorted((self.directory / "paddle").glob("workerlog.*"))]
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-2500:]}" for path in paths if path.exists()
        )

    def wait(self, expected: int = 0) -> Ranks:
        """Wait for the end, which must have the given exit code (that of Paddle's launcher)."""
        try:
            code = self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {TIMEOUT_S} s\n{self.output()}") from None
        assert code == expected, f"exit code {code}, not {expected}\n{self.output()}"
        return self

    def wait_for(self, condition: Callable[[Ranks], bool]) -> Ranks:
        """Wait until something is true of a launch that is still running."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(self):
            assert self.process.poll() is None, f"ended too early\n{self.output()}"
            assert time.monotonic() < deadline, f"waited in vain\n{self.output()}"
            time.sleep(0.003)
        return self

    def stands_at(self, stage: str, step: int) -> Callable[[Ranks], bool]:
        """Whether some rank has reached a step of a stage."""
        return lambda ranks: any(
            beat.get("stage") == stage and beat.get("step", 0) >= step
            for beat in map(ranks.heartbeat, range(ranks.world_size))
        )

    def kill(self) -> None:
        """kill -9 of Paddle's launcher and of every rank."""
        pids = [self.process.pid, *(self.heartbeat(rank).get("pid") for rank in range(self.world_size))]
        for pid in filter(None, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        """Ask all ranks to stop, as the agent does."""
        (self.directory / "stop").write_text("test")


def lines(path: Path) -> list[dict[str, Any]]:
    """A JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines(path)]
