"""Making the environment: choose, check the room, create, install, try, commit."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path

from . import devices, locks
from .errors import CANNOT_WRITE, SetupError
from .interpreter import base_python
from .pip import Pip
from .place import Place, Stamp, cannot_write
from .progress import Progress, format_bytes
from .venv import create, run_step, site_packages

CPU_BYTES = 3_000_000_000
GPU_BYTES = 12_000_000_000

# Installed first, by whatever pip the interpreter brings: a known pip, and what builds the packages without a wheel.
BUILD_TOOLS = frozenset({"pip", "setuptools", "wheel", "setuptools-scm", "packaging", "typing-extensions", "tomli"})
# Replaced by paddlepaddle-gpu when the device is a GPU.
CPU_PADDLE = "paddlepaddle"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a set-up will do. `pins` are the locked packages for this Python and device."""

    stamp: Stamp
    choice: devices.Choice
    pins: tuple[locks.Pin, ...]

    @property
    def gpu(self) -> bool:
        return self.choice.device != "cpu"

    @property
    def needed_bytes(self) -> int:
        return GPU_BYTES if self.gpu else CPU_BYTES

    @property
    def num_packages(self) -> int:
        return len(self.pins) + self.gpu

    def describe(self, root: Path) -> list[str]:
        """The lines `setup --dry-run` prints."""
        version = next((pin.version for pin in self.pins if pin.name == CPU_PADDLE), devices.PADDLE_VERSION)
        wheel, index = f"paddlepaddle {version}", "pip's own configuration"
        if self.gpu:
            wheel = f"paddlepaddle-gpu {devices.PADDLE_VERSION}"
            index = f"{devices.index_url(self.choice.device)} (the rest: pip's own configuration)"
        plus = " and its CUDA libraries" if self.gpu else ""
        free = shutil.disk_usage(root).free
        return [
            f"device    {self.choice.device} ({self.choice.reason})",
            f"wheel     {wheel}",
            f"index     {index}",
            f"python    {self.stamp.python_version} ({self.stamp.python_path})",
            f"packages  {self.num_packages}{plus}, from {', '.join(locks.groups(self.stamp.extras))}",
            f"disk      about {format_bytes(self.needed_bytes)} needed, {format_bytes(free)} free in {root}",
        ]


def make_plan(choice: devices.Choice, extras: tuple[str, ...], directory: Path = locks.DIRECTORY) -> Plan:
    """Plan an environment for the interpreter this runs on."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    pins = locks.read_pins(locks.groups(extras), version, directory)
    if choice.device != "cpu":
        pins = [pin for pin in pins if pin.name != CPU_PADDLE]
    stamp = Stamp(locks.identity(directory), version, base_python(), choice.device, extras)
    return Plan(stamp, choice, tuple(pins))


def build(place: Place, plan: Plan, progress: Progress) -> None:
    """Make the planned environment and put it in use; the caller holds the lock. Raises SetupError."""
    _check_room(place.root, plan)
    environment = place.new_environment()
    try:
        place.open_log()
        progress.update("making the environment", plan.stamp.python_version)
        bootstrap = create(environment, place.log)
        temporary = environment / "tmp"
        temporary.mkdir()
        pip = Pip(bootstrap, site_packages(environment), place.log, temporary)
        _install(environment, pip, plan, progress)
        progress.update("trying the environment", "import paddle, paddlenlp")
        _try_import(environment, place.log)
        shutil.rmtree(temporary, ignore_errors=True)
        place.commit(environment, plan.stamp)
    except OSError as error:
        raise cannot_write(environment, error) from error
    finally:
        if os.path.realpath(place.link) != os.path.realpath(environment):
            shutil.rmtree(environment, ignore_errors=True)


def _check_room(root: Path, plan: Plan) -> None:
    free = shutil.disk_usage(root).free
    if free < plan.needed_bytes:
        raise SetupError(
            f"Too little room in {root}: {format_bytes(free)} free, about {format_bytes(plan.needed_bytes)} needed for "
            f"device {plan.choice.device}.\n  Next: free some space, put the project on another disk"
            + (", or take the CPU wheel (./run.sh setup --device cpu)." if plan.gpu else "."),
            CANNOT_WRITE,
        )


def _install(environment: Path, pip: Pip, plan: Plan, progress: Progress) -> None:
    total = plan.num_packages
    locked = ["--no-deps", "--require-hashes", "--no-build-isolation"]

    def install(stage: str, pip: Pip, pins: list[locks.Pin]) -> None:
        if pins:
            path = environment / "requirements.txt"
            path.write_text("".join(f"{pin.text}\n" for pin in pins), encoding="utf-8")
            pip.install([*locked, "-r", str(path)], stage, total, progress)

    install("installing pip and build tools", pip, [pin for pin in plan.pins if pin.name in BUILD_TOOLS])
    if any(pin.name == "pip" for pin in plan.pins):
        pip = dataclasses.replace(pip, command=(str(environment / "bin" / "python"), "-m", "pip"))
    if plan.gpu:
        _install_gpu_wheel(environment, pip, plan, progress)
    install("installing packages", pip, list(plan.pins))


def _install_gpu_wheel(environment: Path, pip: Pip, plan: Plan, progress: Progress) -> None:
    """Install paddlepaddle-gpu and the CUDA libraries it names from Paddle's own index, before everything else.

    That index publishes no hashes; the versions are fixed (PADDLE_VERSION, and the libraries' by the wheel itself).
    First, because it is the largest and the least reachable of all.
    """
    index = ["--index-url", devices.index_url(plan.choice.device)]
    wheel = f"paddlepaddle-gpu=={devices.PADDLE_VERSION}"
    pip.install(
        ["--no-deps", *index, wheel],
        f"installing {wheel} ({plan.choice.device})",
        plan.num_packages,
        progress,
    )
    constraints = environment / "constraints.txt"
    constraints.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in plan.pins), encoding="utf-8")
    locked = {locks.canonical_name(pin.name) for pin in plan.pins}
    libraries = [line for line in _requirements_of(pip.site_packages) if _project_name(line) not in locked]
    if libraries:
        arguments = [*index, "--constraint", str(constraints), *libraries]
        pip.install(arguments, f"installing CUDA libraries ({plan.choice.device})", plan.num_packages, progress)


def _requirements_of(site_packages: Path) -> list[str]:
    """The `Requires-Dist` lines of the installed paddlepaddle-gpu, extras left out."""
    lines = []
    for metadata in site_packages.glob("paddlepaddle_gpu-*.dist-info/METADATA"):
        for line in metadata.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines():
            if line.startswith("Requires-Dist:") and "extra ==" not in line:
                lines.append(line.partition(":")[2].strip())
    return lines


def _project_name(requirement: str) -> str:
    """The normalised project name at the start of a requirement."""
    return locks.canonical_name(re.split(r"[\s\[\]();<>=!~@]", requirement.strip(), maxsplit=1)[0])


def _try_import(environment: Path, log: Path) -> None:
    argv = [str(environment / "bin" / "python"), "-c", "import paddle, paddlenlp"]
    run_step(argv, log, environment.parent, "The packages were installed, but `import paddle, paddlenlp` fails")
