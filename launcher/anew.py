"""Which stages of a run a changed config makes anew, and where what they had is kept: nothing is ever deleted.

A finished stage is trained again when one of its own settings has changed, when it starts from a stage that is trained
again, or on request (`--rerun`). A stage that has begun but is not finished is never thrown away silently: a change is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError
from configs.inits import Init, parse_init
from configs.schema import Config
from launcher import settings
from launcher.attempt_dir import make_private_directory, writing
from launcher.files import read_json_object, sync_directory, write_json

SUPERSEDED = "superseded"
SETTINGS_FILE = "settings.json"
MAX_SHOWN = 4


@dataclass(frozen=True)
class Anew:
    """One stage that is trained again."""

    stage: str
    reasons: tuple[str, ...]
    kept_in: str
    """Where its directory goes, below the run directory."""
    removed: bool = False
    """It is no longer in the config; its result must not count when it comes back."""


def stage_result(run_dir: Path, stage: str) -> dict[str, Any] | None:
    """done.json of a stage; None while the stage is not finished."""
    return read_json_object(run_dir / stage / "done.json")


def has_begun(run_dir: Path, stage: str) -> bool:
    """The stage is finished, or has a checkpoint."""
    return stage_result(run_dir, stage) is not None or any((run_dir / stage / "checkpoints").glob("step-*"))


def find_anew(run_dir: Path, old: Config | None, new: Config, rerun: Sequence[str] = ()) -> tuple[Anew, ...]:
    """The stages to train again, in order. old: the run's config so far; None when nothing of it counts.

    Raises ConfigError with every difference when an unfinished stage would have to go on with other settings.
    """
    found: dict[str, Anew] = {}
    refused: list[settings.Change] = []
    stuck: list[str] = []
    for name in new.stages:
        if not has_begun(run_dir, name):
            continue
        start = new.stage_start(name)
        changed = _changes(run_dir, old, new, name)
        reasons = ["--rerun"] if name in rerun else []
        reasons += [f"starts from {start.stage}"] if start.run is None and start.stage in found else []
        if reasons or (changed and stage_result(run_dir, name) is not None):
            found[name] = Anew(name, (*reasons, *map(settings.shown, changed)), _free_place(run_dir, name))
            continue
        if stage_result(run_dir, name) is None:
            changed += settings.launch_changes(old, new) if old else []
            stuck += [name] if changed else []
            refused += changed
    if stuck:
        raise _refusal(run_dir.name, stuck, refused)
    return (*found.values(), *_removed_with(run_dir, old, new, found))


def _removed_with(run_dir: Path, old: Config | None, new: Config, found: Mapping[str, Anew]) -> list[Anew]:
    """The stages that have left the config and started from one that is trained again, also by way of others; a stage after its start."""
    starts = {name: start for name, start in _starts_of_removed(run_dir, old, new).items() if start.run is None}
    gone = set(found)
    stale: list[Anew] = []
    while following := [name for name, start in starts.items() if start.stage in gone and name not in gone]:
        stale += [
            Anew(name, (f"starts from {starts[name].stage}",), _free_place(run_dir, name), removed=True)
            for name in following
        ]
        gone |= set(following)
    return stale


def _starts_of_removed(run_dir: Path, old: Config | None, new: Config) -> dict[str, Init]:
    """What each stage that is not in the config, but has begun, started from, as far as it is known."""
    starts = {}
    for name in sorted(path.name for path in run_dir.glob("*") if path.is_dir() and path.name not in new.stages):
        if has_begun(run_dir, name):
            recorded = read_json_object(run_dir / name / SETTINGS_FILE) or {}
            init = old.stage_start(name) if old and name in old.stages else parse_init(str(recorded.get("init", "")))
            if init is not None:
                starts[name] = init
    return starts


def _changes(run_dir: Path, old: Config | None, new: Config, name: str) -> list[settings.Change]:
    if old is None:
        return []
    recorded: settings.Settings | None
    recorded = (
        settings.stage_settings(old, name) if name in old.stages else read_json_object(run_dir / name / SETTINGS_FILE)
    )
    if recorded is None:
        return [(f"stages.{name}", "(unknown: another config)", "this config")]
    return settings.changes(recorded, new, name)


def _refusal(run: str, stuck: list[str], changed: list[settings.Change]) -> ConfigError:
    rows = "\n".join(f"  {row}" for row in dict.fromkeys(map(settings.shown, changed)))
    verb = "has begun, and was" if len(stuck) == 1 else "have begun, and were"
    again = " ".join(f"--rerun {name}" for name in stuck[:MAX_SHOWN])
    return ConfigError(
        f"run '{run}': {_listed(stuck)} {verb} started with another config:\n{rows}",
        f"./run.sh resume {run} (goes on as it was), train it anew: {again}, or use another name: --resume never --name NAME",
    )


def _free_place(run_dir: Path, stage: str) -> str:
    taken = {each.name for each in (run_dir / SUPERSEDED).glob(f"{stage}-*")}
    number = next(n for n in range(1, len(taken) + 2) if f"{stage}-{n:03d}" not in taken)
    return f"{SUPERSEDED}/{stage}-{number:03d}"


def set_aside(run_dir: Path, anew: Sequence[Anew]) -> None:
    """Moves the directories away, the last stage first: at no time is a stage finished whose start is gone.

    Each move is one rename; after a crash the run is as before, with those stages unfinished. Raises CannotWriteError.
    """
    for each in reversed(anew):
        place = run_dir / each.kept_in
        make_private_directory(place.parent)
        with writing(place):
            os.rename(run_dir / each.stage, place)
            sync_directory(place.parent)
            sync_directory(run_dir)


def remember_removed(run_dir: Path, old: Config, new: Config) -> None:
    """Stages that leave the config stay where they are, with their settings beside them: they count again when they come back."""
    for name in old.stages:
        if name not in new.stages and has_begun(run_dir, name):
            with writing(run_dir / name):
                write_json(run_dir / name / SETTINGS_FILE, settings.stage_settings(old, name), durable=True)


def describe(anew: Sequence[Anew], launched: Sequence[str]) -> list[str]:
    """What is trained anew and why, one line per reason. `launched`: the stages of this launch."""
    by_reason: dict[tuple[bool, tuple[str, ...]], list[Anew]] = {}
    for each in anew:
        own_keys = tuple(reason.replace(f"stages.{each.stage}.", "") for reason in each.reasons)
        by_reason.setdefault((each.removed, own_keys), []).append(each)
    lines = []
    for (_, own_keys), group in by_reason.items():
        names = [each.stage for each in group]
        reasons = own_keys if len(group) > 1 else group[0].reasons
        why = "; ".join(reasons[:MAX_SHOWN]) + (
            f" and {len(reasons) - MAX_SHOWN} more" if len(reasons) > MAX_SHOWN else ""
        )
        when = "" if any(name in launched for name in names) else ", but not in this launch"
        what = f"no longer count{'s' if len(group) == 1 else ''}" if group[0].removed else f"trained anew{when}"
        kept = group[0].kept_in if len(group) == 1 else f"{SUPERSEDED}/"
        lines.append(f"{_listed(names)}: {what} ({why}); the old result is kept in {kept}")
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_SHOWN]) + (f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else "")
    return f"stage '{names[0]}'" if len(names) == 1 else f"stages {shown}"
