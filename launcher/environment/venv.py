"""Making a bare virtual environment, and running one step in it with its output in the log."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import CANNOT_WRITE, UNAVAILABLE, SetupError
from .interpreter import base_python
from .pip import die_with_parent, pip_environment

STEP_TIMEOUT_S = 300.0
SYSTEM_WHEELS = Path("/usr/share/python-wheels")  # where Debian keeps what it took out of ensurepip


def create(environment: Path, log: Path) -> tuple[str, ...]:
    """Create the bare environment; returns the pip command that installs the first packages into it.

    Without ensurepip: Debian and Ubuntu leave it out of python3, and the lock brings its own pip anyway.
    """
    failure = "The virtual environment could not be created"
    run_step([base_python(), "-m", "venv", "--without-pip", str(environment)], log, environment.parent, failure)
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


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment of this Python lie."""
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def run_step(argv: list[str], log: Path, directory: Path, failure: str) -> None:
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
