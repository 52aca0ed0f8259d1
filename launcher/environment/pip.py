"""Running pip: with the machine's own network configuration, visible progress, a bound, and errors in plain words."""

from __future__ import annotations

import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import CANNOT_WRITE, UNAVAILABLE, SetupError
from .progress import Progress, format_bytes

STALL_TIMEOUT_S = 900.0
LOOK_INTERVAL_S = 0.25

# Of the user's pip settings only those that say where packages come from and how to reach them reach the set-up:
# PIP_USER, PIP_TARGET, PIP_NO_DEPS and the like would install something else, or somewhere else.
KEPT_PIP_SETTINGS = frozenset(
    [
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_NO_INDEX",
        "PIP_FIND_LINKS",
        "PIP_PROXY",
        "PIP_CERT",
        "PIP_CLIENT_CERT",
        "PIP_TRUSTED_HOST",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_RETRIES",
        "PIP_RESUME_RETRIES",
        "PIP_CACHE_DIR",
        "PIP_NO_CACHE_DIR",
        "PIP_CONFIG_FILE",
        "PIP_KEYRING_PROVIDER",
        "PIP_USE_DEPRECATED",
        "PIP_USE_FEATURE",
    ]
)

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Pip:
    """How to run pip for one environment, where its log goes, and where it may put temporary files."""

    command: tuple[str, ...]
    site_packages: Path
    log: Path
    temporary: Path

    def install(self, arguments: list[str], stage: str, total: int, progress: Progress) -> None:
        """Run `pip install ARGUMENTS`; raises SetupError with what happened and what to do.

        `total` is the number of packages expected in the environment at the end, for the progress line.
        """
        argv = [*self.command, "install", "--progress-bar", "off", "--no-input", "--no-user", *arguments]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(argv)}\n".encode())
            log.flush()
            start = log.tell()
            returncode = self._run(argv, log.fileno(), stage, total, progress)
        if returncode != 0:
            with self.log.open("rb") as log:
                log.seek(start)
                said = log.read().decode(errors="replace")
            raise explain_failure(said, returncode, self.log)

    def _run(self, argv: list[str], log_fd: int, stage: str, total: int, progress: Progress) -> int:
        watch = _Watch(self.site_packages, self.temporary, total)
        process = subprocess.Popen(  # pip of the environment being made
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=pip_environment(self.temporary),
            preexec_fn=die_with_parent,  # noqa: PLW1509 - there are no threads here
        )
        if process.stdout is None:
            raise RuntimeError("pip was started without a pipe")
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while True:
                    if selector.select(timeout=0.5):
                        chunk = os.read(process.stdout.fileno(), 65536)
                        if not chunk:
                            break
                        os.write(log_fd, chunk)
                        watch.heard(chunk)
                    progress.update(stage, watch.describe())
                    if watch.silent_s() > STALL_TIMEOUT_S:
                        raise SetupError(
                            f"pip has neither written nor received anything for {STALL_TIMEOUT_S / 60:.0f} minutes and "
                            f"was stopped while {stage}.\n  Its log: {self.log}\n  Next: check the network, then call "
                            "again; what was downloaded is kept in pip's cache.",
                            UNAVAILABLE,
                        )
            return process.wait(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()


class _Watch:
    """What pip has done so far, seen from outside: its messages, the files it holds, the packages installed."""

    def __init__(self, site_packages: Path, temporary: Path, total: int) -> None:
        self._site_packages = site_packages
        self._temporary = temporary
        self._total = total
        self._collected = 0
        self._retrying = False
        self._state: tuple[int, int, int] = (0, 0, 0)
        self._moved_s = time.monotonic()
        self._looked_s = 0.0
        self._text = ""

    def heard(self, chunk: bytes) -> None:
        self._collected += len(re.findall(rb"^(?:Collecting|Processing) ", chunk, re.MULTILINE))
        self._retrying = b"Retrying (" in chunk
        self._moved_s = time.monotonic()

    def describe(self) -> str:
        """The progress text, looked up anew at most every LOOK_INTERVAL_S."""
        if time.monotonic() - self._looked_s >= LOOK_INTERVAL_S:
            self._text = self._look()
            self._looked_s = time.monotonic()
        return self._text

    def _look(self) -> str:
        installed = sum(1 for name in _names(self._site_packages) if name.endswith(".dist-info"))
        held = _tree_bytes(self._temporary)
        state = (self._collected, installed, held)
        if state != self._state:
            self._state, self._moved_s = state, time.monotonic()
        if self._retrying:
            return "the package index does not answer, trying again"
        text = f"{installed} of {self._total} packages installed"
        if self._collected and installed < self._total:
            text = f"{min(self._collected, self._total)} of {self._total} packages fetched, {installed} installed"
        return f"{text}, {format_bytes(held)} in hand" if held else text

    def silent_s(self) -> float:
        return time.monotonic() - self._moved_s


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _tree_bytes(root: Path) -> int:
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size
            except OSError:  # pip removes its files while we look
                continue
    return total


def die_with_parent() -> None:
    """In a child before exec: have the kernel kill it when the set-up is killed, so that nothing writes on."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_LIBC = ctypes.CDLL(None)


def pip_environment(temporary: Path) -> dict[str, str]:
    """The user's environment without what would change which Python runs or where and what pip installs."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PIP_", "__PYVENV")) or name in KEPT_PIP_SETTINGS
    }
    # Values that a configuration file may also hold, so leaving them out is not enough.
    environment |= {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    return environment


def explain_failure(said: str, returncode: int, log: Path) -> SetupError:
    """Turn pip's output into one message: what happened, pip's own words, the log, what to do next."""
    errors = [line.strip() for line in said.splitlines() if line.startswith("ERROR:")]
    words = "\n".join(f"  pip: {line.removeprefix('ERROR:').strip()}" for line in errors[:4])
    tail = f"{words}\n  Full log: {log}" if words else f"  Full log: {log}"
    for pattern, what, advice, code in _CAUSES:
        if re.search(pattern, said):
            index = _indices(said)
            return SetupError(f"{what}{index}\n{tail}\n  Next: {advice}", code)
    return SetupError(
        f"pip ended with exit code {returncode}.\n{tail}\n  Next: read the log, then call again.", UNAVAILABLE
    )


def _indices(said: str) -> str:
    """Where pip looked, with passwords masked (pip masks them, this also drops user names)."""
    match = re.search(r"^Looking in (?:indexes|links): (.*)$", said, re.MULTILINE)
    return f"\n  Looked in: {re.sub(r'//[^/@ ]*@', '//', match[1])}" if match else ""


_NETWORK_ADVICE = (
    "check the network (ping, proxy: HTTPS_PROXY, mirror: PIP_INDEX_URL or `pip config set global.index-url URL`), "
    "then call the same command again.\n  Without a network: make the environment elsewhere, or use an interpreter that "
    "has the packages: ./run.sh --python PATH COMMAND."
)
_CAUSES = (
    (
        r"No space left on device|Errno 28|Disk quota exceeded|Errno 122",
        "The disk is full: pip could not finish.",
        "free some space (or set PIP_CACHE_DIR to another disk if pip's cache is what is full), then call again.",
        CANNOT_WRITE,
    ),
    (
        r"DO NOT MATCH THE HASHES|Hashes are required in --require-hashes mode",
        "The package index served a file that is not the one in the lock file, so nothing of it was installed.",
        "use another index (PIP_INDEX_URL); a mirror that rebuilds packages cannot be used. If the log names a file "
        "that should be trusted, refresh the lock files as launcher/environment/requirements/base.in says.",
        UNAVAILABLE,
    ),
    (
        r"Read-only file system|Permission denied|Errno 13|Errno 30",
        "pip could not write.",
        "check the owner and mode of the directory that the log names, then call again.",
        CANNOT_WRITE,
    ),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|SSLError|NameResolutionError|"
        r"Temporary failure in name resolution|Connection refused|Connection broken|ConnectionResetError|Max retries|"
        r"ProtocolError|HTTP error 5\d\d|incomplete-download",
        "A package index could not be reached.",
        _NETWORK_ADVICE,
        UNAVAILABLE,
    ),
    (
        r"No matching distribution found|Could not find a version",
        "The package index does not have a package of the lock file for this Python and machine.",
        "if the index is a mirror, it may lag behind: use another (PIP_INDEX_URL). Without any network this is also "
        "what pip says: " + _NETWORK_ADVICE,
        UNAVAILABLE,
    ),
)
