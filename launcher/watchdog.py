"""Notices ranks that no longer get anywhere, and names the one that the others wait for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from configs.errors import Exit
from launcher import stacks
from launcher.attempt_dir import AttemptDirectory
from launcher.ends import NodeFailure
from launcher.error_kinds import kind_of_error
from launcher.ranks import RankWatch
from launcher.spec import Bounds

SLOW_STEPS = 20
"""Where steps are long, this many medians of them are the bound of a step."""
SILENT_S = 10.0
"""Peers gave up on a collective, and this rank still runs without a sign for so long: it is the one that did not come."""
MOST_FRAMES = 12


class Watchdog:
    """Watches the ranks of one node. Nothing here signals but for stacks."""

    def __init__(self, bounds: Bounds, attempt: AttemptDirectory, node: int, ranks: Sequence[RankWatch]) -> None:
        self._bounds = bounds
        self._attempt = attempt
        self._node = node
        self._ranks = ranks

    def bound_s(self, rank: RankWatch) -> float:
        """Most seconds without a sign of progress in the rank's present phase."""
        bound = self._bounds.phases.get("import" if rank.phase == "start" else rank.phase, float("inf"))
        if rank.phase == "step" and rank.step_seconds:
            bound = max(bound, SLOW_STEPS * statistics.median(rank.step_seconds))
        return bound

    def find_hang(self, now: float) -> NodeFailure | None:
        """The hang of this node at the monotonic time `now`; None while every rank is within its bound. Takes seconds when
        there is one: the stacks of all ranks are written first."""
        running = [rank for rank in self._ranks if not rank.ended]
        # A rank that waits for its peers is as late as they are: only one at work is judged, unless all wait.
        judged = [rank for rank in running if not rank.heartbeat.get("waits")] or running
        late = [rank for rank in judged if now - rank.beat_at > self.bound_s(rank)]
        return self._describe(now, f"bound {self.bound_s(late[0]):.0f} s") if late else None

    def blame_silent(self, now: float) -> NodeFailure | None:
        """After ranks have failed in collectives: the one that runs on but did not come to them; None when there is none."""
        failed = [rank for rank in self._ranks if rank.failed]
        if not all(rank.error is not None and kind_of_error(rank.error) == "peer" for rank in failed):
            return None
        silent = [rank for rank in self._ranks if not rank.ended and not rank.failed]
        if all(now - rank.beat_at < SILENT_S for rank in silent):
            return None
        return self._describe(now, "its peers gave up waiting")

    def _describe(self, now: float, why: str) -> NodeFailure:
        running = [rank for rank in self._ranks if not rank.ended and rank.worker is not None]
        files = [(rank.worker, self._attempt.stacks(self._node, rank.rank)) for rank in running if rank.worker]
        stacks.dump(files)
        rank = self._suspect(running) if running else next(rank for rank in self._ranks if not rank.ended)
        path, frames, doing = self._attempt.stacks(self._node, rank.rank), self._frames(rank), "not started"
        waiting = "; it waits for a peer itself" if self._waits(rank) else ""
        if rank.worker is not None:
            doing = stacks.describe_process(rank.worker.pid)
            stacks.add_native(rank.worker.pid, path)
        what = f"hangs: no progress for {now - rank.beat_at:.0f} s in phase '{rank.phase}' ({why}); {doing}{waiting}"
        return NodeFailure(
            kind="hang",
            what=what,
            t=time.time(),
            exit_code=int(Exit.FAILED),
            hint="raise launch.timeouts if this may take longer, then ./run.sh resume {name}",
            rank=rank.rank,
            phase=rank.phase,
            detail="\n".join(["Stack of the main thread (most recent call first):", *frames]) if frames else "",
            log=str(self._attempt.log(self._node, rank.rank)),
            details=(f"stacks of all ranks: {path.parent}/rank-*.stacks",),
        )

    def _suspect(self, running: Sequence[RankWatch]) -> RankWatch:
        """The rank to blame: one that does not run at all, else one that is in no collective, else the longest silent."""

        def key(rank: RankWatch) -> tuple[bool, bool, float]:
            frozen = rank.worker is not None and stacks.state(rank.worker.pid) in ("T", "t", "D")
            return (not frozen, self._waits(rank), float(rank.heartbeat.get("t") or 0.0))

        return min(running, key=key)

    def _waits(self, rank: RankWatch) -> bool:
        return bool(rank.heartbeat.get("waits")) or stacks.waits_for_peers(self._frames(rank))

    def _frames(self, rank: RankWatch) -> list[str]:
        return stacks.main_thread(self._attempt.stacks(self._node, rank.rank))[:MOST_FRAMES]
