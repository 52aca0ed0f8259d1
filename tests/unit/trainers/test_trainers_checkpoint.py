"""Checkpoints as commits: any damage is named and an older one used; crashes and full disks leave the older ones intact."""

from __future__ import annotations

import ast
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.errors import CannotWriteError, DataError, Exit
from trainers.engine.checkpoint import CheckpointStore, Snapshot, newest_intact
from trainers.engine.files import commit_directory, replace_file, sweep_partial

ROOT = Path(__file__).resolve().parents[3]
FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json", "manifest.json")


def snapshot(step: int, size: int = 8) -> Snapshot:
    rng = np.random.default_rng(step)
    names = [name.partition(".")[0] for name in FILES[:3]]
    tensors: dict[str, dict[str, np.ndarray]] = {
        name: {"a": rng.random((size, 3)).astype(np.float32), "b": rng.random(2)} for name in names
    }
    return Snapshot(step, tensors, {"progress": {"step": step}, "fingerprint": "f"})


def assert_holds(found: Snapshot | None, step: int) -> None:
    assert found is not None
    assert found.step == found.state["step"] == step
    expected = snapshot(step)
    assert found.state["progress"] == expected.state["progress"]
    for name, arrays in expected.tensors.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(found.tensors[name][key], array)
            assert found.tensors[name][key].dtype == array.dtype


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    made = CheckpointStore(tmp_path / "checkpoints")
    for step in (10, 20):
        made.write(snapshot(step))
    return made


def test_what_was_written_is_read(store: CheckpointStore) -> None:
    assert store.steps() == [10, 20]
    for step in (10, 20):
        assert_holds(store.read(step), step)
        directory = store.path(step)
        assert directory.name == f"step-{step:08d}"
        assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())
        assert directory.stat().st_mode & 0o777 == 0o700
        manifest = json.loads((directory / "manifest.json").read_bytes())
        assert {name: facts["bytes"] for name, facts in manifest["files"].items()} == {
            name: (directory / name).stat().st_size for name in FILES[:4]
        }
    found, problems = newest_intact(store)
    assert_holds(found, 20)
    assert problems == []
    assert newest_intact(CheckpointStore(store.directory / "nothing")) == (None, [])


def damages(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Ways to damage a file, reproducible by the seed."""
    content, chance = path.read_bytes(), random.Random(path.name)
    for cut in {0, 1, len(content) - 1, *(chance.randrange(len(content)) for _ in range(5))}:
        yield f"cut to {cut} bytes", lambda cut=cut: path.write_bytes(content[:cut])  # type: ignore[misc]
    bits = (
        range(8 * len(content))
        if path.name == "manifest.json"
        else (chance.randrange(8 * len(content)) for _ in range(20))
    )
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", lambda flipped=flipped: path.write_bytes(flipped)  # type: ignore[misc]
    yield "longer", lambda: path.write_bytes(content + b"\n")
    yield "missing", path.unlink

    def become_directory() -> None:
        path.unlink()
        path.mkdir()

    yield "a directory", become_directory
    yield "of another step", lambda: path.write_bytes((path.parent.parent / "step-00000010" / path.name).read_bytes())


@pytest.mark.parametrize("name", FILES)
def test_any_damage_is_named_and_the_older_checkpoint_used(store: CheckpointStore, name: str) -> None:
    path = store.path(20) / name
    original = path.read_bytes()
    count = 0
    for label, damage in damages(path):
        damage()
        harmless = name == "manifest.json" and label == "longer"  # a line end more says the same
        found, problems = newest_intact(store)
        if harmless:
            assert_holds(found, 20)
        else:
            assert_holds(found, 10)
            assert len(problems) == 1, label
            assert problems[0].startswith(str(store.path(20))), (label, problems)
            if name != "manifest.json":
                assert problems[0].startswith(f"{path}: "), (label, problems)
            with pytest.raises(DataError):
                store.read(20)
        if path.is_dir():
            path.rmdir()
        path.write_bytes(original)
        count += 1
    assert count >= 20
    assert_holds(newest_intact(store)[0], 20)


def test_foreign_things_among_the_checkpoints(store: CheckpointStore, tmp_path: Path) -> None:
    (store.directory / "step-00000030").write_text("a file")
    (store.directory / "step-00000040").mkdir()
    (store.directory / "step-00000050").mkdir()
    (store.directory / "step-00000050" / "manifest.json").write_text(
        json.dumps({"format": 1, "step": 50, "files": {"../../secret": {"bytes": 1, "sha256": ""}, "state.json": {}}})
    )
    shutil.copytree(store.path(10), store.path(60))  # of step 10, by its manifest
    (store.directory / "step-00000070").symlink_to(tmp_path / "nowhere")
    (store.directory / "notes").mkdir()
    (store.directory / "step-7").mkdir()
    assert store.steps() == [10, 20, 30, 40, 50, 60, 70]
    found, problems = newest_intact(store)
    assert_holds(found, 20)
    assert len(problems) == 5
    for step, problem in zip((70, 60, 50, 40, 30), problems, strict=True):
        assert str(store.path(step)) in problem


def test_a_pickle_in_place_of_tensors_is_refused(store: CheckpointStore, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    (store.path(20) / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    assert_holds(newest_intact(store)[0], 10)
    assert not (tmp_path / "owned").exists()


def test_rewriting_a_step_replaces_it(store: CheckpointStore) -> None:
    (store.path(20) / "model.safetensors").write_bytes(b"damaged")
    store.write(snapshot(20))
    assert_holds(newest_intact(store)[0], 20)
    assert [path.name for path in store.directory.iterdir() if path.name.startswith(".")] == []


# Retention


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    for step in range(10, 80, 10):
        store.write(snapshot(step))
        store.prune(2, {20}, step)
    assert store.steps() == [20, 60, 70]
    store.prune(1, set(), 70)
    assert store.steps() == [70]
    store.prune(1, set(), 70)
    assert store.steps() == [70]
    assert list(store.directory.glob(".*")) == []


def test_retention_does_not_count_damaged_newer_ones(store: CheckpointStore) -> None:
    """A resume from step 20 passed over damaged 30 and 40; the new checkpoint of step 25 must stay whatever the number kept."""
    for step in (30, 40):
        store.write(snapshot(step))
        (store.path(step) / "state.json").write_bytes(b"")
    store.write(snapshot(25))
    store.prune(1, set(), 25)
    found, problems = newest_intact(store)
    assert_holds(found, 25)
    assert len(problems) == 2
    assert store.steps() == [25, 30, 40]


def test_random_saves_and_damages_never_lose_the_newest_intact(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(15):
        store = CheckpointStore(tmp_path / f"{chance.random()}")
        intact: set[int] = set()
        best, step = None, 0
        for _ in range(25):
            if chance.random() < 0.2 and store.steps():
                damaged = chance.choice(store.steps())
                (store.path(damaged) / chance.choice(FILES)).write_bytes(b"?")
                intact.discard(damaged)
                step = max(intact, default=0)  # a resume
                best = best if best in intact else None
            step += 1
            store.write(snapshot(step))
            intact.add(step)
            best = step if chance.random() < 0.2 else best
            store.prune(2, {best} if best else set(), step)
            intact &= set(store.steps())
            assert_holds(newest_intact(store)[0], max(intact))
            assert step in intact
            assert best is None or best in intact


# Crashes


def test_leftovers_of_a_crash_are_swept(store: CheckpointStore) -> None:
    partial = store.directory / ".step-00000030.4711.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    (store.directory / ".step-00000005.0.partial").mkdir()
    (store.directory / ".file.12.partial").write_bytes(b"half")
    store.path(20).rename(store.directory / ".step-00000020.99.retired")  # a crash between two renames
    shutil.copytree(store.path(10), store.directory / ".step-00000010.99.retired")  # a crash before the last deletion
    assert store.steps() == [10]
    store.sweep()
    assert sorted(path.name for path in store.directory.iterdir()) == ["step-00000010", "step-00000020"]
    for step in (10, 20):
        assert_holds(store.read(step), step)


def test_sweeping_does_not_follow_links(store: CheckpointStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    (store.directory / ".x.1.partial").symlink_to(precious)
    store.sweep()
    assert (precious / "file").read_text() == "keep"
    assert list(store.directory.glob(".*")) == []


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from tests.unit.trainers.test_trainers_checkpoint import snapshot
from trainers.engine.checkpoint import CheckpointStore
calls, fatal = [0], int(sys.argv[2])
def counted(function):
    def wrapper(*arguments, **more):
        calls[0] += 1
        if calls[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return wrapper
for name in ("open", "fsync", "rename", "mkdir", "write"):
    setattr(os, name, counted(getattr(os, name)))
store = CheckpointStore(Path(sys.argv[1]))
store.write(snapshot(20))
store.write(snapshot(30))
store.prune(1, set(), 30)
print(calls[0])
"""


@pytest.mark.fault
def test_killed_at_every_system_call_of_a_save(tmp_path: Path) -> None:
    """A real SIGKILL before each call that changes the disk, of a save that replaces a step and of one that adds a step."""
    template = tmp_path / "template"
    store = CheckpointStore(template)
    for step in (10, 20):
        store.write(snapshot(step))

    def run(directory: Path, fatal: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED_WRITER, str(directory), str(fatal)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    shutil.copytree(template, tmp_path / "whole")
    whole = run(tmp_path / "whole", -1)
    assert whole.returncode == 0, whole.stderr
    total = int(whole.stdout)
    assert total >= 30
    seen = set()
    for fatal in range(1, total + 1, max(1, total // 12)):
        directory = tmp_path / f"killed-{fatal}"
        shutil.copytree(template, directory)
        assert run(directory, fatal).returncode == -signal.SIGKILL
        store = CheckpointStore(directory)
        store.sweep()
        found, problems = newest_intact(store)
        assert problems == []
        assert found is not None
        assert_holds(found, found.step)
        assert found.step in (20, 30)
        seen.add(found.step)
        assert list(directory.glob(".*")) == []
    assert 20 in seen


# No room


def small_disk(path: Path, size_bytes: int) -> bool:
    """Mount a tmpfs of that size; False where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.fault
def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not small_disk(disk, 1 << 20):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        assert_full_disk_is_told(CheckpointStore(disk / "checkpoints"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.fault
def test_a_file_size_limit(tmp_path: Path) -> None:
    """The same without root: no file may grow beyond 400 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = CheckpointStore(tmp_path / "checkpoints")
    store.write(snapshot(10))
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        assert_full_disk_is_told(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def assert_full_disk_is_told(store: CheckpointStore) -> None:
    store.write(snapshot(10))
    with pytest.raises(CannotWriteError) as caught:
        store.write(snapshot(20, size=100_000))
    assert caught.value.code == Exit.CANNOT_WRITE
    assert "step-00000020" in caught.value.message
    assert "No space left" in caught.value.message or "File too large" in caught.value.message
    assert [path.name for path in store.directory.iterdir()] == ["step-00000010"]
    store.write_later(snapshot(30, size=100_000), lambda: pytest.fail("nothing was saved"))
    with pytest.raises(CannotWriteError):
        store.wait()
    store.wait()
    assert_holds(newest_intact(store)[0], 10)
    store.write(snapshot(20))
    assert_holds(newest_intact(store)[0], 20)


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises((CannotWriteError, OSError)):
        CheckpointStore(tmp_path / "checkpoints").write(snapshot(1))


# In the background


def test_background_writes_follow_each_other(tmp_path: Path) -> None:
    store, done = CheckpointStore(tmp_path / "checkpoints"), []
    for step in (1, 2, 3):
        store.write_later(snapshot(step), lambda step=step: done.append((step, threading.current_thread().name)))
        store.raise_failure()
    store.wait()
    assert [step for step, _ in done] == [1, 2, 3]
    assert all(name.startswith("checkpoint") for _, name in done)
    assert store.steps() == [1, 2, 3]


def test_a_failed_background_write_is_raised_by_the_next_look(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("in the way")
    store.write_later(snapshot(1), lambda: None)
    pending = store._pending
    assert pending is not None
    pending.exception(timeout=10)
    with pytest.raises((CannotWriteError, OSError)):
        store.raise_failure()
    store.raise_failure()


def test_a_snapshot_is_not_changed_by_later_training(tmp_path: Path) -> None:
    """`numpy()` of a parameter is a copy: what is written is the step that was saved."""
    paddle = pytest.importorskip("paddle", reason="needs Paddle")
    weight = paddle.to_tensor([1.0, 2.0])
    held = weight.numpy()
    weight.scale_(5.0)
    assert held.tolist() == [1.0, 2.0]


# Plain files


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    with pytest.raises(CannotWriteError) as caught:
        replace_file(path / "below", b"x")
    assert str(path / "below") in caught.value.message


def test_a_failed_directory_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def write(directory: Path) -> None:
        (directory / "a").write_bytes(b"old")

    commit_directory(target, write)

    def fail(directory: Path) -> None:
        (directory / "a").write_bytes(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(CannotWriteError):
        commit_directory(target, fail)
    assert (target / "a").read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    sweep_partial(tmp_path)
    assert (target / "a").read_bytes() == b"old"


def test_a_failed_replacement_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CannotWriteError):
            replace_file(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_nothing_in_the_trainers_can_unpickle() -> None:
    modules = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    sources = sorted((ROOT / "trainers").rglob("*.py"))
    assert len(sources) > 30
    found = []
    for path in sources:
        # the alignment's other side computes with PyTorch, in an interpreter of its own, and reads safetensors as well
        banned = modules if "reference" in path.parts else {*modules, "torch"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in banned]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in ("load", "save"):
                found += [f"{path.name}: {node.value.id}.{node.attr}"] if node.value.id in ("paddle", "torch") else []
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant)
                found += [f"{path.name}: allow_pickle"] if node.value.value else []
    assert found == []
