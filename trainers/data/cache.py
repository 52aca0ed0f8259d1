"""The cache of token arrays: entries named by the hash of everything they depend on, so that none can be stale.

An entry is built in a temporary directory beside its final place, synced, and renamed: it is there completely or not at all, and two
builders at once do not disturb each other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.errors import CannotWriteError, DataError
from trainers.data.store import FORMAT_VERSION, MANIFEST, read_manifest

_ABANDONED_AFTER_S = 24 * 3600
_CHUNK_BYTES = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Build = Callable[[Path], Mapping[str, Any]]
"""Writes an entry's files into a directory and returns its further manifest fields."""


def cache_root() -> Path:
    """Where downloads, tokens and models are kept: $BERT4DOC_CACHE, else $XDG_CACHE_HOME/bert4doc, else ~/.cache/bert4doc."""
    own = os.environ.get("BERT4DOC_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bert4doc"


def sha256_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """Hex sha256 of a file; `advance` is told the bytes of every chunk. OSError when it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return digest.hexdigest()


def fingerprint_of(key: Mapping[str, Any]) -> str:
    """Hex sha256 of a key: a JSON object of everything that determines an entry's content."""
    text = json.dumps({"format": FORMAT_VERSION, **key}, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def ensure_entry(
    tokens_dir: Path, kind: str, key: Mapping[str, Any], build: Build, needed_bytes: int, say: Callable[[str], None]
) -> Path:
    """The directory of the entry for `key`, built if it is not there or damaged (`say` tells the latter).

    `needed_bytes` is an estimate for the error message. Raises CannotWriteError when the disk is full or the place is not writable,
    and whatever `build` raises.
    """
    fingerprint = fingerprint_of({"kind": kind, **key})
    target = tokens_dir / fingerprint
    try:
        make_private_dir(tokens_dir)
        _sweep(tokens_dir)
        if target.exists():
            fault = find_fault(target, kind)
            if fault is None:
                return target
            say(f"cache entry damaged, making it anew: {fault}")
            _discard(target)
        _build_entry(target, kind, fingerprint, key, build)
    except OSError as error:
        raise write_error(error, tokens_dir, needed_bytes) from error
    return target


def find_fault(path: Path, kind: str) -> str | None:
    """What is wrong with an entry (format, sizes and sha256 of its files), or None."""
    try:
        manifest = read_manifest(path, kind)
        for name, facts in manifest["files"].items():
            if sha256_file(path / name) != facts["sha256"]:
                return f"{path / name}: sha256 differs from the manifest"
    except DataError as error:
        return error.message
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


def make_private_dir(path: Path) -> None:
    """Make a directory and its parents; new ones are for the user alone."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)


def write_error(error: OSError, path: Path, needed_bytes: int) -> CannotWriteError:
    """A CannotWriteError for a failed write below `path`, with what is needed and what is free."""
    place = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    reason = "the disk is full" if error.errno in _NO_SPACE else (error.strerror or str(error))
    return CannotWriteError(
        f"{path}: cannot write the cache: {reason} (about {needed_bytes / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free)",
        "free some space, or set BERT4DOC_CACHE to a place with more",
    )


def _build_entry(target: Path, kind: str, fingerprint: str, key: Mapping[str, Any], build: Build) -> None:
    work = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        fields = build(work)
        files = {}
        for path in sorted(work.iterdir()):
            os.chmod(path, 0o600)
            _sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        manifest = {
            **fields,
            "format": FORMAT_VERSION,
            "kind": kind,
            "fingerprint": fingerprint,
            "key": dict(key),
            "files": files,
        }
        manifest_path = work / MANIFEST
        manifest_path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        os.chmod(manifest_path, 0o600)
        _sync(manifest_path)
        _sync(work)
        _publish(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, target: Path) -> None:
    try:
        os.rename(work, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return  # another builder was first; its entry has the same key, so the same content
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(target: Path) -> None:
    """Move a damaged entry out of the way first: the rename is atomic for other builders, the removal is not."""
    aside = Path(tempfile.mkdtemp(prefix=".tmp-bad-", dir=target.parent))
    with contextlib.suppress(FileNotFoundError):  # another builder discarded it just now
        os.rename(target, aside / "entry")
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(tokens_dir: Path) -> None:
    """Remove what builders that died a day ago or earlier left behind."""
    for path in tokens_dir.glob(".tmp-*"):
        try:
            abandoned = time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)
