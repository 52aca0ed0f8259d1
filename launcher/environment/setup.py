"""The two ways to an environment: `ensure` (every command, on first use) and `setup` (asked for)."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys

from . import devices, interpreter, locks
from .build import CPU_PADDLE, build, make_plan
from .errors import USAGE, SetupError
from .place import Place, Stamp
from .progress import Progress


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run.sh setup",
        description="Make the environment (.venv) from the lock files. Every command does this by itself on first use.",
    )
    parser.add_argument(
        "--device",
        choices=devices.DEVICES,
        help="which Paddle wheel: auto asks nvidia-smi (default: the one in use, auto the first time)",
    )
    parser.add_argument(
        "--extra",
        action="append",
        choices=[*locks.extras(), "none"],
        help="install this extra, may be repeated; none: only what training needs "
        f"(default: those in use, {' and '.join(locks.DEFAULT_EXTRAS)} the first time)",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the Python 3.10 to 3.12 the environment is made with (default: the one in use, else the first found)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be installed and why, start nothing")
    return parser.parse_args(arguments)


def ensure(place: Place) -> None:
    """Make the environment if it is not complete, with what was chosen before (or auto)."""
    progress = Progress()
    place.check_link()
    current = place.current()
    _continue_with(current.python_path if current else None, asked=False)
    with place.locked(progress):
        current = place.current()
        if current is not None and current.identity == locks.identity():
            return  # another call made it while this one waited
        if current is None:
            progress.say("The environment is not there yet: making it, once (about 2 minutes, downloads about 1 GB).")
        else:
            progress.say("The lock files have changed: making the environment anew.")
        _make(place, _remembered_device(current), current.extras if current else locks.DEFAULT_EXTRAS, progress)


def setup(place: Place, arguments: list[str]) -> None:
    """Make the environment as asked, or say that it is already so."""
    options = _parse(arguments)
    progress = Progress()
    current = place.current()
    _continue_with(options.python or (current.python_path if current else None), options.python is not None)
    device = options.device or _remembered_device(current)
    extras = _chosen_extras(options.extra, current)
    if options.dry_run:
        plan = make_plan(devices.choose(device), extras)
        print("\n".join([*plan.describe(place.root), *(f"warning   {text}" for text in plan.choice.warnings)]))
        return
    place.check_link()
    with place.locked(progress):
        current = place.current()
        choice = devices.choose(device)
        wanted = make_plan(choice, extras).stamp
        if current is not None and _same(current, wanted) and not _damage(place):
            progress.say(f"The environment is ready: {_summary(current)}. Nothing to do.")
            return
        _make(place, device, extras, progress, choice)


def _continue_with(python: str | None, asked: bool) -> None:
    """Go on in the interpreter the environment is to be made with, when it is another than this one."""
    if python is None or not (asked or os.access(python, os.X_OK)):
        return  # the interpreter in use was removed: this one, which run.sh found, takes its place
    base = interpreter.find_base(python)
    if base != interpreter.base_python():
        os.execv(base, [base, "-I", *sys.argv])  # noqa: S606 - an exec, no shell


def _chosen_extras(asked: list[str] | None, current: Stamp | None) -> tuple[str, ...]:
    if asked is None:
        return current.extras if current else locks.DEFAULT_EXTRAS
    if "none" in asked and len(set(asked)) > 1:
        raise SetupError("--extra none cannot be combined with other extras.", USAGE)
    return tuple(sorted(set(asked) - {"none"}))


def _remembered_device(current: Stamp | None) -> str:
    return current.device if current else "auto"


def _same(current: Stamp, wanted: Stamp) -> bool:
    """Whether an environment is the wanted one; a newer patch release of its Python is no reason to make it anew."""
    return current == dataclasses.replace(wanted, python_version=current.python_version)


def _damage(place: Place) -> bool:
    """Whether packages of a complete environment have been removed or changed by hand."""
    stamp = place.current()
    if stamp is None:
        return True
    installed = set()
    for path in place.link.glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.stem.partition("-")
        installed.add((locks.canonical_name(name), version))
    return any(
        (locks.canonical_name(pin.name), pin.version) not in installed
        for pin in locks.read_pins(locks.groups(stamp.extras), stamp.python_version)
        if not (pin.name == CPU_PADDLE and stamp.device != "cpu")
    )


def _make(
    place: Place,
    device: str,
    extras: tuple[str, ...],
    progress: Progress,
    choice: devices.Choice | None = None,
) -> None:
    choice = choice or devices.choose(device)
    if place.sweep():
        progress.say("Removed what an earlier set-up left behind.")
    for warning in choice.warnings:
        progress.say(f"warning: {warning}")
    plan = make_plan(choice, extras)
    progress.say(f"Device: {choice.device} ({choice.reason}). Python: {plan.stamp.python_version}.")
    build(place, plan, progress)
    place.sweep()
    progress.say(f"The environment is ready: {_summary(plan.stamp)}. It took {progress.elapsed()}.")


def _summary(stamp: Stamp) -> str:
    extras = f", with {' and '.join(stamp.extras)}" if stamp.extras else ""
    return f"device {stamp.device}, Python {stamp.python_version}{extras}"
