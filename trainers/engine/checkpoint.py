"""Checkpoints as commits: safetensors + JSON + a manifest with sizes and sha256, renamed into place in one step. No pickle.

STAGE/checkpoints/step-00000120/
    model.safetensors optimizer.safetensors [ema.safetensors] state.json manifest.json
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as to_safetensors

from configs.errors import DataError
from trainers.engine.files import commit_directory, sweep_partial, sync_directory, write_synced

FORMAT = 1
_NAME = re.compile(r"^step-(\d{8,})$")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Snapshot:
    """Everything of one step, copied to the host: tensor files by name (without suffix), and plain values."""

    step: int
    tensors: Mapping[str, Arrays]
    state: Mapping[str, Any]


class CheckpointStore:
    """The checkpoints of one stage. Rank 0 writes, in a thread of its own; all ranks read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def path(self, step: int) -> Path:
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a committed checkpoint, ascending."""
        if not self.directory.is_dir():
            return []
        names = (_NAME.match(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in names if match)

    def write(self, snapshot: Snapshot) -> None:
        """Commit a snapshot. Raises CannotWriteError and leaves older checkpoints untouched."""

        def fill(directory: Path) -> None:
            files: dict[str, dict[str, Any]] = {}
            contents = {f"{name}.safetensors": to_safetensors(arrays) for name, arrays in snapshot.tensors.items()}
            contents["state.json"] = json.dumps({"format": FORMAT, "step": snapshot.step, **snapshot.state}).encode()
            for name, content in contents.items():
                files[name] = {"bytes": len(content), "sha256": write_synced(directory / name, content)}
            manifest = {"format": FORMAT, "step": snapshot.step, "files": files}
            write_synced(directory / "manifest.json", json.dumps(manifest, indent=1).encode())

        commit_directory(self.path(snapshot.step), fill)

    def write_later(self, snapshot: Snapshot, then: Any) -> None:
        """Commit a snapshot in the background, after the one before it, and call `then()` once it is durable."""
        self.wait()

        def work() -> None:
            self.write(snapshot)
            then()

        self._pending = self._writer.submit(work)

    def wait(self) -> None:
        """Return when nothing is being written; raises what the last write raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def raise_failure(self) -> None:
        """Raise what a finished background write raised, without waiting for one under way."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def read(self, step: int) -> Snapshot:
        """Load and verify one checkpoint. Raises DataError that names the first file that is not as it was written."""
        directory = self.path(step)
        files = _read_manifest(directory, step)
        contents = {name: _read_verified(directory / name, entry) for name, entry in files.items()}
        state = json.loads(contents.pop("state.json"))
        tensors = {name.removesuffix(".safetensors"): parse_safetensors(content) for name, content in contents.items()}
        return Snapshot(step, tensors, state)

    def prune(self, newest: int, keep: set[int], last: int) -> None:
        """Delete all but the `newest` checkpoints up to the step `last`, which was just written, and the steps in `keep`.

        Later steps do not count: they are what a resume has passed over as damaged.
        """
        steps = [step for step in self.steps() if step <= last]
        for step in steps[:-newest]:
            if step not in keep:
                retired = self.directory / f".step-{step:08d}.0.partial"
                self.path(step).rename(retired)
                shutil.rmtree(retired, ignore_errors=True)
        if steps:
            sync_directory(self.directory)

    def sweep(self) -> None:
        """Remove what an interrupted write left behind."""
        if self.directory.is_dir():
            sweep_partial(self.directory)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}", "resume from another checkpoint with --resume PATH, or start anew with --name")


def _read_manifest(directory: Path, step: int) -> dict[str, dict[str, Any]]:
    path = directory / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT or manifest["step"] != step:
            raise _damaged(path, f"is for format {manifest['format']}, step {manifest['step']}")
        files: dict[str, dict[str, Any]] = manifest["files"]
        if "state.json" not in files or any("/" in name for name in files):
            raise _damaged(path, "does not list the files of a checkpoint")
        if not all(isinstance(entry["bytes"], int) and isinstance(entry["sha256"], str) for entry in files.values()):
            raise _damaged(path, "does not give the size and sha256 of every file")
        return files
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error


def _read_verified(path: Path, entry: Mapping[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    if len(content) != entry["bytes"]:
        raise _damaged(path, f"has {len(content)} bytes, {entry['bytes']} were written")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _damaged(path, "its content is not what was written (sha256 differs)")
    return content


def newest_intact(store: CheckpointStore) -> tuple[Snapshot | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one."""
    problems: list[str] = []
    for step in reversed(store.steps()):
        try:
            return store.read(step), problems
        except DataError as error:
            problems.append(error.message)
    return None, problems
