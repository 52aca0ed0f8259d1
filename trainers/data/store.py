"""What the cache holds, as memory maps: labelled texts and pre-training corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from trainers.data.npy import map_npy

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
REBUILD = "run ./run.sh prepare on the config: it makes the entry anew"


class Texts:
    """One split of a data set as token ids without special tokens, never truncated. Rows are numbered in input order."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.fingerprint: str = manifest["fingerprint"]
        self.label_names: tuple[str, ...] = tuple(manifest["label_names"])
        self.has_pairs: bool = manifest["has_pairs"]
        self._ids = map_npy(path / "ids.npy")
        self._offsets = map_npy(path / "offsets.npy")
        self.lengths: np.ndarray = np.diff(self._offsets)
        self.labels: np.ndarray | None = np.asarray(map_npy(path / "labels.npy")) if manifest["has_labels"] else None
        self.pair_lengths: np.ndarray | None = None
        if self.has_pairs:
            self._pair_ids = map_npy(path / "pair_ids.npy")
            self._pair_offsets = map_npy(path / "pair_offsets.npy")
            self.pair_lengths = np.diff(self._pair_offsets)
        self.num_skipped: int = manifest["skipped"]
        """Bad rows of the raw data that are not among the rows."""
        self.skipped_examples: list[str] = manifest["skipped_examples"]
        """What was wrong with the first of them."""
        self.row_fingerprints: np.ndarray = map_npy(path / "fingerprints.npy")
        """uint64 [rows] of text and pair, as `trainers.data.fingerprints` makes them."""
        self._source_names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens(self, i: int) -> np.ndarray:
        """Token ids of row `i`'s text: int32 [tokens], a copy."""
        return self._ids[self._offsets[i] : self._offsets[i + 1]].astype(np.int32)

    def pair_tokens(self, i: int) -> np.ndarray | None:
        """Token ids of row `i`'s second text, or None where the data set has no pairs."""
        if not self.has_pairs:
            return None
        return self._pair_ids[self._pair_offsets[i] : self._pair_offsets[i + 1]].astype(np.int32)

    def run(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(token ids of the rows start..stop-1 one after another, tokens of each): a view of the stored arrays."""
        return self._ids[self._offsets[start] : self._offsets[stop]], self.lengths[start:stop]

    def pair_run(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray] | None:
        """`run` of the second texts, or None where the data set has no pairs."""
        if self.pair_lengths is None:
            return None
        return self._pair_ids[self._pair_offsets[start] : self._pair_offsets[stop]], self.pair_lengths[start:stop]

    def sources(self, i: int) -> str:
        """Where row `i` came from, as "file:line" or the member of a folder or archive: for messages."""
        if self._source_names is None:
            self._source_names = json.loads((self.path / "source_names.json").read_text(encoding="utf-8"))
            self._source_files = map_npy(self.path / "source_files.npy")
            self._source_lines = map_npy(self.path / "source_lines.npy")
        name = self._source_names[int(self._source_files[i])]
        line = int(self._source_lines[i])
        return f"{name}:{line}" if line else name


class Corpus:
    """Documents of sentences as one flat sequence of token ids; no sentence and no document is empty."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.fingerprint: str = manifest["fingerprint"]
        self.cls_id: int = manifest["cls_id"]
        self.sep_id: int = manifest["sep_id"]
        self.ids: np.ndarray = map_npy(path / "ids.npy")
        """Token ids of all sentences, uint16 or uint32 [tokens]."""
        self.sentence_offsets: np.ndarray = map_npy(path / "sentence_offsets.npy")
        """Where sentences start in `ids`: int64 [sentences + 1]."""
        self.document_offsets: np.ndarray = map_npy(path / "document_offsets.npy")
        """Where documents start among the sentences: int64 [documents + 1]."""
        self.is_continuation: np.ndarray = np.asarray(map_npy(path / "is_continuation.npy"))
        """Which vocabulary entries continue a word ("##..."): bool [vocabulary]."""
        self.num_skipped: int = manifest["skipped"]
        """Bad rows (or sentences) of the raw data that are not in the corpus."""
        self.skipped_examples: list[str] = manifest["skipped_examples"]
        """What was wrong with the first of them."""
        self.num_left_out: int = manifest["left_out"]
        """Documents left out because they repeat others or stand in a test split."""
        self.row_fingerprints: np.ndarray = map_npy(path / "fingerprints.npy")
        """uint64 [documents], as `trainers.data.fingerprints` makes them."""

    @property
    def num_documents(self) -> int:
        """Documents in the corpus."""
        return len(self.document_offsets) - 1

    @property
    def num_tokens(self) -> int:
        """Tokens in the corpus, without special tokens."""
        return len(self.ids)


class Instances:
    """Ready pre-training instances end to end, without padding."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.fingerprint: str = manifest["fingerprint"]
        self.longest: int = manifest["longest"]
        """Tokens of the longest instance."""
        self.ids: np.ndarray = map_npy(path / "ids.npy")
        """Token ids as the model gets them, uint16 or uint32 [tokens]."""
        self.types: np.ndarray = map_npy(path / "types.npy")
        """Token types, uint8 [tokens]."""
        self.offsets: np.ndarray = map_npy(path / "offsets.npy")
        """Where instances start: int64 [instances + 1]."""
        self.positions: np.ndarray = map_npy(path / "positions.npy")
        """Predicted positions within their instance, uint16 [predictions]."""
        self.labels: np.ndarray = map_npy(path / "labels.npy")
        """True ids there, uint16 or uint32 [predictions]."""
        self.prediction_offsets: np.ndarray = map_npy(path / "prediction_offsets.npy")
        """Where the predictions of instances start: int64 [instances + 1]."""
        self.is_random_next: np.ndarray = map_npy(path / "next.npy")
        """1 where the second part does not follow the first: uint8 [instances]."""

    def __len__(self) -> int:
        return len(self.is_random_next)


def open_texts(path: Path) -> Texts:
    """Open a cache entry of texts; raises DataError when it is missing, damaged or of another kind."""
    return Texts(Path(path), read_manifest(Path(path), "texts"))


def open_corpus(path: Path) -> Corpus:
    """Open a cache entry of a corpus; raises DataError when it is missing, damaged or of another kind."""
    return Corpus(Path(path), read_manifest(Path(path), "corpus"))


def open_instances(path: Path) -> Instances:
    """Open a cache entry of ready instances; raises DataError when it is missing, damaged or of another kind."""
    return Instances(Path(path), read_manifest(Path(path), "instances"))


def read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """An entry's manifest after checking its format, kind and the size of every file it lists; DataError names what is wrong."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT_VERSION or manifest["kind"] != kind:
            raise DataError(
                f"{path}: format {manifest['format']} {manifest['kind']}, expected {FORMAT_VERSION} {kind}", REBUILD
            )
        for name, facts in manifest["files"].items():
            size = (path / name).stat().st_size
            if size != facts["bytes"]:
                raise DataError(f"{path / name}: {size} bytes, the manifest says {facts['bytes']}", REBUILD)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot read the cache entry: {error.strerror}", REBUILD) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path / MANIFEST}: no valid manifest ({error!r})", REBUILD) from error
    return manifest
