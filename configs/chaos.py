"""Faults that a user asks for on purpose (`--chaos KIND:RANK@STEP`): how they are written, read alike by launcher and
ranks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from configs.errors import ConfigError

KINDS = {
    "kill": "SIGKILL to itself",
    "hang": "sleeps for ever",
    "spin": "hangs with Python's lock held",
    "stop": "SIGSTOP to itself",
    "raise": "an exception",
    "nan": "the loss of its samples is not a number",
    "exit0": "leaves with exit code 0",
    "slow": "the step takes 2 s longer",
    "segv": "SIGSEGV to itself",
    "term": "SIGTERM to itself, which asks all ranks to stop",
    "oom": "the error of a device without memory",
}
SYNTAX = "[every:]KIND:RANK@[STAGE:]STEP"
_FAULT = re.compile(
    r"(?P<every>every:)?(?P<kind>[a-z0-9]+):(?P<rank>\d{1,6})@(?:(?P<stage>[A-Za-z0-9][A-Za-z0-9_-]{0,63}):)?(?P<step>\d{1,12})"
)


@dataclass(frozen=True)
class Fault:
    """One fault: what a rank does to itself where it has done `step` optimizer steps of a stage."""

    kind: str
    rank: int
    step: int
    stage: str = ""
    """Empty until `in_stage` has filled it in."""
    every: bool = False
    """At every step from `step` on and in every attempt, instead of once in the run."""

    def __str__(self) -> str:
        place = f"{self.stage}:{self.step}" if self.stage else str(self.step)
        return f"{'every:' if self.every else ''}{self.kind}:{self.rank}@{place}"

    def in_stage(self, stage: str) -> Fault:
        """The same with a stage, unless it names one."""
        return self if self.stage else replace(self, stage=stage)


def parse_fault(text: str) -> Fault:
    """Reads one fault. Raises ConfigError."""
    match = _FAULT.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise ConfigError(
            f"--chaos {text!r}: not of the form {SYNTAX}, with KIND one of {', '.join(KINDS)}",
            "for example --chaos kill:1@20",
        )
    return Fault(match["kind"], int(match["rank"]), int(match["step"]), match["stage"] or "", bool(match["every"]))


def check_faults(faults: tuple[Fault, ...], world_size: int, stages: tuple[str, ...]) -> tuple[Fault, ...]:
    """The faults, each with its stage (by default the first of `stages`). Raises ConfigError for a rank or stage that is
    not there."""
    for fault in faults:
        if fault.rank >= world_size:
            raise ConfigError(f"--chaos {fault}: there is no rank {fault.rank}; ranks: 0 to {world_size - 1}")
        if fault.stage and fault.stage not in stages:
            raise ConfigError(f"--chaos {fault}: no unfinished stage '{fault.stage}'; stages: {', '.join(stages)}")
    return tuple(fault.in_stage(stages[0]) for fault in faults) if stages else ()
