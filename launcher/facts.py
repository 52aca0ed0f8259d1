"""What this machine, the model and the prepared data are: everything that the plan needs and cannot decide by itself.

Collected once, then handed to `launcher.plan.make_plan`, which is pure. Nothing here imports Paddle: GPUs are asked of nvidia-smi, model
sizes of config.json.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.ports import find_free_block
from configs.errors import UnavailableError

NVIDIA_SMI_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi reports it."""

    index: int
    name: str
    memory_bytes: int
    compute_capability: str


@dataclass(frozen=True)
class ModelFacts:
    """Size of a BERT encoder with its pooler, without task heads."""

    name: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    vocab_size: int
    num_parameters: int
    source: str
    num_positions: int = 512
    folder: str = ""
    """Where it lies on this machine; empty before it is downloaded."""


@dataclass(frozen=True)
class CorpusFacts:
    """One prepared corpus of a pre-training stage."""

    title: str
    weight: float
    documents: int
    left_out: int


@dataclass(frozen=True)
class StageFacts:
    """What preparation found out about one stage's data."""

    num_examples: int
    num_validation: int = 0
    num_test: int = 0
    num_labels: int = 0
    """All labels together where there are several data sets."""
    mean_tokens: float = 0.0
    most_fractions: int = 0
    """Sequences of the longest training text; 0 while unknown."""
    data_sets: Mapping[str, StageFacts] = field(default_factory=dict)
    """The same for each data set of a multi-task stage."""
    corpora: tuple[CorpusFacts, ...] = ()
    num_held_out: int = 0
    """Documents that a pre-training stage evaluates on."""


@dataclass(frozen=True)
class Facts:
    """Everything that make_plan takes from the world."""

    cores: int
    memory_bytes: int
    free_disk_bytes: int
    gpus: tuple[Gpu, ...] = ()
    start_port: int = 0
    model: ModelFacts | None = None
    stages: Mapping[str, StageFacts] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """This process's own environment: may hold secrets, and never leaves it as a whole."""
    cpu_vendor: str = ""


def count_cores() -> int:
    """Cores that this process may use: its affinity mask, lowered by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_cpu_quota()
    return max(1, min(cores, math.floor(quota))) if quota is not None else cores


def _cgroup_cpu_quota() -> float | None:
    """CPUs granted by cgroup v2 `cpu.max` or v1 `cpu.cfs_*`; None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        base = Path("/sys/fs/cgroup/cpu")
        limit = int((base / "cpu.cfs_quota_us").read_text())
        return limit / int((base / "cpu.cfs_period_us").read_text()) if limit > 0 else None
    except (OSError, ValueError):
        return None


def memory_available_bytes() -> int:
    """Memory that new processes can take: MemAvailable, lowered by what is left of the cgroup's limit; 0 when unknown."""
    available = 0
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            available = min(available, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass
    return available


def cpu_vendor() -> str:
    """`AuthenticAMD`, `GenuineIntel` or another vendor_id; empty when unknown."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("vendor_id"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def list_gpus() -> tuple[Gpu, ...]:
    """GPUs that nvidia-smi lists; none when it is absent, fails or does not answer within 10 s."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The rows of nvidia-smi's CSV answer (index, name, MiB, compute capability); other lines are skipped."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[0].isdigit() and cells[2].isdigit():
            gpus.append(Gpu(int(cells[0]), cells[1], int(cells[2]) * 2**20, cells[3]))
    return tuple(gpus)


def free_disk_bytes(place: Path) -> int:
    """Free bytes for this user at `place` or its nearest existing parent; 0 when unknown."""
    for folder in (place, *place.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0


def prepared_stages(prepared: Mapping[str, Any] | None) -> dict[str, StageFacts]:
    """The `stages` part of prepared.json as StageFacts."""
    stages = (prepared or {}).get("stages", {})
    return {name: _stage_facts(entry) for name, entry in stages.items()}


def _stage_facts(entry: Mapping[str, Any]) -> StageFacts:
    data_sets = {name: _stage_facts(part) for name, part in (entry.get("data_sets") or {}).items()}
    return StageFacts(
        num_examples=int(entry.get("num_examples") or 0),
        num_validation=int(entry.get("num_validation") or 0),
        num_test=int(entry.get("num_test") or 0),
        num_labels=sum(part.num_labels for part in data_sets.values()) or len(entry.get("label_names") or ()),
        mean_tokens=float(entry.get("mean_tokens") or 0.0),
        most_fractions=int(entry.get("most_fractions") or 0),
        data_sets=data_sets,
        corpora=tuple(
            CorpusFacts(each["title"], float(each["weight"]), int(each["documents"]), int(each["left_out"]))
            for each in entry.get("corpora") or ()
        ),
        num_held_out=int(entry.get("num_held_out") or 0),
    )


def collect(
    run_dir: Path,
    num_ranks: int,
    model: ModelFacts | None,
    stages: Mapping[str, StageFacts],
    gpus: tuple[Gpu, ...],
) -> Facts:
    """The facts of this machine, now. `num_ranks` ports in a row are looked for. Raises UnavailableError when there are none."""
    try:
        start_port = find_free_block(num_ranks)
    except OSError as error:
        raise UnavailableError(str(error), "start fewer ranks, or end what holds the ports") from error
    return Facts(
        cores=count_cores(),
        memory_bytes=memory_available_bytes(),
        free_disk_bytes=free_disk_bytes(run_dir),
        gpus=gpus,
        start_port=start_port,
        model=model,
        stages=dict(stages),
        environment=dict(os.environ),
        cpu_vendor=cpu_vendor(),
    )
