"""Which Paddle wheel suits this machine: the CPU wheel, or the GPU wheel of one CUDA version.

Sources of the table. Minimum drivers: NVIDIA, "CUDA Compatibility", minor version compatibility (CUDA 11.x from
450.80.02, 12.x from 525.60.13, 13.x from 580.65.06). Compute capabilities: the architecture lists of Paddle's
release builds (cmake/cuda.cmake) and what the wheels themselves report on a GPU they do not fit: CUDA 11.8 carries
6.0 to 8.6 and no Hopper, 12.9 is the first with Blackwell, 13.0 dropped everything below 7.5. A kernel runs on
later minor versions of its own major version, so 8.6 also serves 8.9, and 10.0 serves 10.3.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass

PADDLE_VERSION = "3.3.1"
PADDLE_INDEX = "https://www.paddlepaddle.org.cn/packages/stable"
QUERY_TIMEOUT_S = 10.0

Version = tuple[int, ...]


@dataclass(frozen=True)
class GpuWheel:
    """One CUDA build of paddlepaddle-gpu: the oldest driver it runs on and the capabilities it has kernels for."""

    name: str
    cuda: str
    min_driver: Version
    capabilities: tuple[Version, ...]

    def carries(self, capability: Version) -> bool:
        """Whether a kernel of the same major and the same or an earlier minor capability is in the wheel."""
        return any(c[0] == capability[0] and c[1] <= capability[1] for c in self.capabilities)


# In the order in which `auto` tries them: the build that is proven on most of the GPUs it fits comes first.
GPU_WHEELS = (
    GpuWheel("cu126", "12.6", (525, 60, 13), ((7, 5), (8, 0), (9, 0))),
    GpuWheel("cu129", "12.9", (525, 60, 13), ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))),
    GpuWheel("cu118", "11.8", (450, 80, 2), ((6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6))),
    GpuWheel("cu130", "13.0", (580, 65, 6), ((7, 5), (8, 0), (9, 0), (10, 0))),
)
DEVICES = ("auto", "cpu", *sorted(wheel.name for wheel in GPU_WHEELS))


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi reports it; drivers before 510 do not tell the compute capability (None)."""

    name: str
    driver: Version
    capability: Version | None


@dataclass(frozen=True)
class Choice:
    """The chosen device and why, with things the user should know (never empty reasons)."""

    device: str
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuQuery:
    """What nvidia-smi said: GPUs, or why there are none; `present` is False where there is no nvidia-smi at all."""

    present: bool
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def query_gpus(timeout_s: float = QUERY_TIMEOUT_S) -> GpuQuery:
    """Ask nvidia-smi (from PATH) for the GPUs of this machine; never raises and never waits longer than `timeout_s`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return GpuQuery(present=False, problem="there is no nvidia-smi in PATH")
    problem, lines = _ask(program, "name,driver_version,compute_cap", timeout_s)
    if "compute_cap" in problem:  # not a field before driver 510
        problem, lines = _ask(program, "name,driver_version", timeout_s)
        lines = [f"{line}, unknown" for line in lines]
    if problem:
        return GpuQuery(present=True, problem=problem)
    gpus = [_parse_gpu(line) for line in lines]
    known = tuple(gpu for gpu in gpus if gpu is not None)
    if not lines or len(known) < len(gpus):
        said = next((line for line, gpu in zip(lines, gpus, strict=True) if gpu is None), "nothing")
        return GpuQuery(present=True, problem=f"nvidia-smi names no GPU that can be read; it said: {said}")
    return GpuQuery(present=True, gpus=known)


def _ask(program: str, fields: str, timeout_s: float) -> tuple[str, list[str]]:
    """The problem (or "") and the lines of one nvidia-smi query."""
    argv = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        with subprocess.Popen(  # a fixed query of the program found in PATH
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return f"nvidia-smi did not answer within {timeout_s:g} s", []
    except OSError as error:
        return f"nvidia-smi could not be started: {error.strerror}", []
    lines = [line.strip() for line in stdout.decode(errors="replace").splitlines() if line.strip()]
    if process.returncode != 0:
        said = (stderr.decode(errors="replace").strip().splitlines() or lines or ["nothing"])[-1]
        return f"nvidia-smi failed with exit code {process.returncode} and said: {said}", []
    return "", lines


def _parse_gpu(line: str) -> Gpu | None:
    match = re.fullmatch(r"(.+),\s*(\d+(?:\.\d+)+)\s*,\s*(\d+\.\d+|unknown)", line)
    if match is None:
        return None
    capability = None if match[3] == "unknown" else parse_version(match[3])
    return Gpu(match[1].strip(), parse_version(match[2]), capability)


def parse_version(text: str) -> Version:
    """`"535.104.05"` as `(535, 104, 5)`."""
    return tuple(int(part) for part in text.split("."))


def format_version(version: Version) -> str:
    """`(8, 6)` as `"8.6"`."""
    return ".".join(str(part) for part in version)


def index_url(device: str) -> str:
    """Paddle's own package index for a CUDA build; BERT4DOC_PADDLE_INDEX names a mirror of its parent directory."""
    return f"{os.environ.get('BERT4DOC_PADDLE_INDEX', PADDLE_INDEX).rstrip('/')}/{device}/"


def choose(requested: str, query: GpuQuery | None = None, machine: str | None = None) -> Choice:
    """Turn a requested device (one of DEVICES) into the device to install.

    An explicit device is always taken; what speaks against it becomes a warning, because the environment may be
    made on a login node for other machines.
    """
    if requested == "cpu":
        return Choice("cpu", "asked for")
    query = query_gpus() if query is None else query
    machine = platform.machine() if machine is None else machine
    if requested != "auto":
        wheel = next(wheel for wheel in GPU_WHEELS if wheel.name == requested)
        return Choice(requested, "asked for", tuple(_objections(wheel, query, machine)))
    return _choose_automatically(query, machine)


def _choose_automatically(query: GpuQuery, machine: str) -> Choice:
    if not query.present:
        return Choice("cpu", f"no NVIDIA GPU: {query.problem}")
    if query.problem:
        return Choice("cpu", query.problem, ("nvidia-smi is there but names no usable GPU: using the CPU wheel.",))
    if machine != "x86_64":
        return Choice("cpu", f"Paddle has GPU wheels for x86_64 only, this machine is {machine}")
    found = _describe(query.gpus)
    for wheel in GPU_WHEELS:
        if not _objections(wheel, query, machine):
            return Choice(wheel.name, f"{found}: the CUDA {wheel.cuda} wheel has kernels for it")
    why = "; ".join(f"{wheel.name}: {_objections(wheel, query, machine)[0]}" for wheel in GPU_WHEELS)
    return Choice("cpu", f"{found}, and no GPU wheel fits", (f"No GPU wheel fits this machine ({why}).",))


def _describe(gpus: tuple[Gpu, ...]) -> str:
    names = sorted({f"{gpu.name} ({_capability_text(gpu)})" for gpu in gpus})
    return f"{len(gpus)} x {', '.join(names)}, driver {format_version(gpus[0].driver)}"


def _capability_text(gpu: Gpu) -> str:
    return f"compute capability {format_version(gpu.capability) if gpu.capability else 'unknown'}"


def _objections(wheel: GpuWheel, query: GpuQuery, machine: str) -> list[str]:
    """What speaks against a wheel on this machine; empty when it fits."""
    if machine != "x86_64":
        return [f"Paddle has GPU wheels for x86_64 only, this machine is {machine}"]
    if query.problem:
        return [f"it cannot be checked on this machine: {query.problem}"]
    found = []
    for gpu in query.gpus:
        if gpu.driver < wheel.min_driver:
            found.append(f"needs driver {format_version(wheel.min_driver)}, found {format_version(gpu.driver)}")
        if gpu.capability is not None and not wheel.carries(gpu.capability):
            found.append(f"is not known to have kernels for {gpu.name} ({_capability_text(gpu)})")
    return list(dict.fromkeys(found))
