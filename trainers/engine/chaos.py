"""A rank's faults on purpose (`--chaos`, configs/chaos.py): off unless asked for; the loop calls it where a step starts."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from configs.chaos import Fault

SLOW_S = 2.0


class Chaos(Protocol):
    """What the loop asks at the start of every step."""

    def begin_step(self, stage: str, step: int) -> float:
        """`step` optimizer steps of the stage are done. Returns what this rank's loss is multiplied by: 1, or NaN."""


class NoChaos:
    """Nothing goes wrong on purpose."""

    def begin_step(self, stage: str, step: int) -> float:
        """Always 1: the loss stays as it is, to the last bit."""
        return 1.0


class RehearsedFaults:
    """The faults of one rank. A marker in the run directory, made before the act, keeps each from firing twice in a run."""

    def __init__(self, faults: Sequence[Fault], rank: int, run_dir: Path) -> None:
        self._faults = [fault for fault in faults if fault.rank == rank]
        self._markers = run_dir / "chaos"

    def begin_step(self, stage: str, step: int) -> float:
        """As in Chaos; does whatever is due. Most faults do not return."""
        factor = 1.0
        for fault in self._faults:
            if self._is_due(fault, stage, step):
                print(f"chaos: {fault}", flush=True)
                factor *= _ACTS[fault.kind]()
        return factor

    def _is_due(self, fault: Fault, stage: str, step: int) -> bool:
        if fault.stage != stage or step < fault.step:
            return False
        return fault.every or (step == fault.step and self._mark(str(fault).replace(":", "-")))

    def _mark(self, name: str) -> bool:
        """Whether this is the first time in the run."""
        self._markers.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._markers / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            return True
        return False


def make_chaos(faults: Sequence[Fault], rank: int, run_dir: Path) -> Chaos:
    """The object for the loop of one rank."""
    return RehearsedFaults(faults, rank, run_dir) if faults else NoChaos()


def _signals(number: int) -> Callable[[], float]:
    def act() -> float:
        os.kill(os.getpid(), number)
        return 1.0

    return act


def _hang() -> float:
    while True:
        time.sleep(1.0)


def _spin() -> float:
    """Sleep in C without giving Python's lock back: no other thread and no Python signal handler runs."""
    while True:
        ctypes.PyDLL(None).sleep(1)


def _raise() -> float:
    raise RuntimeError("rehearsed failure (--chaos raise)")


def _out_of_memory() -> float:
    raise MemoryError("ResourceExhaustedError: Out of memory error on the device (rehearsed, --chaos oom)")


def _exit() -> float:
    os._exit(0)


def _slow() -> float:
    time.sleep(SLOW_S)
    return 1.0


_ACTS: dict[str, Callable[[], float]] = {
    "kill": _signals(signal.SIGKILL),
    "hang": _hang,
    "spin": _spin,
    "stop": _signals(signal.SIGSTOP),
    "raise": _raise,
    "nan": lambda: math.nan,
    "exit0": _exit,
    "slow": _slow,
    "segv": _signals(signal.SIGSEGV),
    "term": _signals(signal.SIGTERM),
    "oom": _out_of_memory,
}
