"""Making the environment: choose, check the room, create, install, try, commit."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import devices, locks
from .errors import CANNOT_WRITE, UNAVAILABLE, SetupError
from .interpreter import base_python
from .pip import Pip, die_with_parent, pip_environment
from .place import Place, Stamp, cannot_write
from .progress import Progress, format_bytes

CPU_BYTES = 3_000_000_000
GPU_BYTES = 12_000_000_000
STEP_TIMEOUT_S = 300.0
SYSTEM_WHEELS = Path("/usr/share/python-wheels")  # where Debian keeps what it took out of ensurepip

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
        bootstrap = _create(environment, place.log)
        temporary = environment / "tmp"
        temporary.mkdir()
        pip = Pip(bootstrap, _site_packages(environment), place.log, temporary)
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


def _create(environment: Path, log: Path) -> tuple[str, ...]:
    """Create the bare environment; returns the pip command that installs the first packages into it.

    Without ensurepip: Debian and Ubuntu leave it out of python3, and the lock brings its own pip anyway.
    """
    failure = "The virtual environment could not be created"
    _run([base_python(), "-m", "venv", "--without-pip", str(environment)], log, environment.parent, failure)
    pip = _first_pip(environment / "bin" / "python")
    if pip is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{base_python()} comes without pip (Debian and Ubuntu package it apart), and there is no other.\n"
            f"  Next: apt-get install python{version}-venv   (or python3-pip), then call again.",
            UNAVAILABLE,
        )
    return pip


def _first_pip(python: Path) -> tuple[str, ...] | None:
    """The first pip that can install into the environment of `python`.

    The wheel that ships with Python, run from its file; or an installed one, by `--python` (since pip 22.3).
    """
    ensurepip = importlib.util.find_spec("ensurepip")
    bundled = Path(ensurepip.origin).parent / "_bundled" if ensurepip and ensurepip.origin else Path("/nonexistent")
    wheels = [wheel for place in (bundled, SYSTEM_WHEELS) for wheel in sorted(place.glob("pip-*.whl"))]
    if wheels:
        return (str(python), str(wheels[0] / "pip"))
    installed: list[tuple[str, ...]] = [(base_python(), "-m", "pip")]
    installed += [(found,) for name in ("pip3", "pip") if (found := shutil.which(name))]
    for command in installed:
        if _pip_version(command) >= (22, 3):
            return (*command, "--python", str(python))
    return None


def _pip_version(command: tuple[str, ...]) -> tuple[int, ...]:
    """Version of a pip command; empty when it does not run."""
    environment = pip_environment(Path(tempfile.gettempdir()))
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=60, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"pip (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match and done.returncode == 0 else ()


def _site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


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
    _run(argv, log, environment.parent, "The packages were installed, but `import paddle, paddlenlp` fails")


def _run(argv: list[str], log: Path, directory: Path, failure: str) -> None:
    """Run a step with its output in the log; raises SetupError with the last line it said."""
    try:
        done = subprocess.run(  # the interpreter in use or the one just made
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_TIMEOUT_S,
            check=False,
            cwd=directory,
            preexec_fn=die_with_parent,
            env={**pip_environment(directory), "PPNLP_HOME": str(directory / "paddlenlp")},
        )
        output, ended = done.stdout, f"exit code {done.returncode}"
        if done.returncode == 0:
            return
    except subprocess.TimeoutExpired as expired:
        output, ended = expired.stdout or b"", f"no end after {STEP_TIMEOUT_S:.0f} s"
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(argv)}\n".encode() + output)
    said = (output.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
    code = CANNOT_WRITE if "No space left" in said or "Errno 28" in said else UNAVAILABLE
    raise SetupError(
        f"{failure} ({ended}).\n  It said: {said}\n  Full log: {log}\n  Next: read the log, then call again.",
        code,
    )
