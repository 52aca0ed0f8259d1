"""Runs a job: starts one agent per node, merges what they say, writes the run's history, and decides how it ended.

    supervise(launch: LaunchSpec, run: RunDirectory, observer: Observer, transport: Transport) -> Outcome
    run_attempt(nodes: Sequence[NodeSpec], transport: Transport, run: RunDirectory, observer: Observer) -> Outcome
    with RunDirectory.open(path) as run / RunDirectory.create(runs_dir, name): holds the run's lock
"""

from __future__ import annotations
