"""Which interpreter an environment is really made with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from .errors import USAGE, SetupError
from .own import check_version

_PROBE = (
    "import json, os, sys; "
    "print(json.dumps([sys.version_info[:2], os.path.realpath(getattr(sys, '_base_executable', sys.executable))]))"
)


def base_python() -> str:
    """The real interpreter behind a virtual environment or a version manager's link.

    An environment is made with that one, so that it outlives both.
    """
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def find_base(name: str) -> str:
    """The real interpreter behind `name` (a path or a program in PATH); raises SetupError when it will not do."""
    found = shutil.which(name)
    if found is None:
        raise SetupError(f"--python {name}: there is no such program.", USAGE)
    try:
        done = subprocess.run([found, "-I", "-c", _PROBE], capture_output=True, timeout=30, check=True)
        version, base = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SetupError(f"--python {name}: it does not run as a Python 3 interpreter ({error}).", USAGE) from error
    check_version((version[0], version[1]), found)
    return str(base)
