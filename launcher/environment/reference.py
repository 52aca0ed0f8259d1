"""The environment of the alignment's other side: PyTorch and Transformers, apart from the project's own, made on first use of `align`.

Everything but PyTorch comes from requirements/align/align.lock with checksums. PyTorch is pinned by version alone: which file an index
serves for it differs by machine (a build for CPU, PyPI's build with CUDA 13 for Linux, others for mirrors), each with its own checksum, and
PyPI's names two dozen CUDA packages of its own, which pip takes at the versions that the wheel fixes. Only `align` ever runs what is
installed here, on data that it has made itself.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

from . import locks
from .errors import CANNOT_WRITE, SetupError
from .interpreter import base_python
from .pip import Pip
from .place import Place, Stamp, cannot_write
from .progress import Progress, format_bytes
from .venv import create, run_step, site_packages

NAME = "align"
TORCH = "torch==2.13.0"
DIRECTORY = locks.DIRECTORY / NAME
NEEDED_BYTES = 2_000_000_000
IMPORTS = "import torch, transformers, safetensors, sklearn"


def wanted_identity() -> str:
    """What the environment is made from, as text."""
    return f"{locks.identity(DIRECTORY)}\n{TORCH}"


def ensure(place: Place) -> None:
    """Make the environment if it is not there or its pins have changed. Raises SetupError."""
    if _is_ready(place):
        return
    progress = Progress()
    with place.locked(progress):
        if _is_ready(place):
            return  # another call made it while this one waited
        progress.say(
            "PyTorch and Transformers are not there yet: installing them into .venv.d/align, once (1 minute and 1.2 GB with a CPU "
            "build of PyTorch; the CUDA build that some indexes serve takes longer and 7 GB)."
        )
        place.sweep()
        _make(place, progress)
        place.sweep()
        progress.say(f"The reference environment is ready. It took {progress.elapsed()}.")


def _is_ready(place: Place) -> bool:
    current = place.current()
    return current is not None and current.identity == wanted_identity()


def _make(place: Place, progress: Progress) -> None:
    free = shutil.disk_usage(place.store).free
    if free < NEEDED_BYTES:
        raise SetupError(
            f"Too little room in {place.store}: {format_bytes(free)} free, at least {format_bytes(NEEDED_BYTES)} needed for PyTorch "
            "and Transformers.\n  Next: free some space, or name an interpreter that has them: ./run.sh align --reference-python PATH",
            CANNOT_WRITE,
        )
    version = ".".join(str(part) for part in sys.version_info[:3])
    environment = place.new_environment()
    try:
        place.open_log()
        progress.update("making the environment", version)
        bootstrap = create(environment, place.log)
        temporary = environment / "tmp"
        temporary.mkdir()
        pip = Pip(bootstrap, site_packages(environment), place.log, temporary)
        _install(environment, pip, locks.read_pins([NAME], version, DIRECTORY), progress)
        progress.update("trying the environment", IMPORTS)
        python = str(environment / "bin" / "python")
        run_step(
            [python, "-c", IMPORTS],
            place.log,
            environment.parent,
            f"The packages were installed, but `{IMPORTS}` fails",
        )
        shutil.rmtree(temporary, ignore_errors=True)
        place.commit(environment, Stamp(wanted_identity(), version, base_python(), "cpu", (NAME,)))
    except OSError as error:
        raise cannot_write(environment, error) from error
    finally:
        if os.path.realpath(place.link) != os.path.realpath(environment):
            shutil.rmtree(environment, ignore_errors=True)


def _install(environment: Path, pip: Pip, pins: list[locks.Pin], progress: Progress) -> None:
    """pip itself, the locked packages with their checksums, then PyTorch and what its wheel names beyond them."""
    requirements, constraints = environment / "requirements.txt", environment / "constraints.txt"
    total = len(pins) + 1
    for stage, chosen in (
        ("installing pip", [pin for pin in pins if pin.name == "pip"]),
        ("installing Transformers", pins),
    ):
        requirements.write_text("".join(f"{pin.text}\n" for pin in chosen), encoding="utf-8")
        arguments = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(requirements)]
        pip.install(arguments, stage, total, progress)
        pip = dataclasses.replace(pip, command=(str(environment / "bin" / "python"), "-m", "pip"))
    constraints.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
    arguments = ["--only-binary", ":all:", "--constraint", str(constraints), TORCH]
    pip.install(arguments, f"installing {TORCH}", total, progress)
