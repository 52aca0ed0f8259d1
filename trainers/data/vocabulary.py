"""A WordPiece vocabulary and the ids that have a meaning of their own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import DataError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION_PREFIX = "##"


@dataclass(frozen=True)
class Vocabulary:
    """The entries of a vocab.txt: one token per line, its id is the 0-based line number."""

    path: Path
    ids: dict[str, int]
    size: int
    sha256: str

    @property
    def pad_id(self) -> int:
        """Id of [PAD]."""
        return self.ids["[PAD]"]

    @property
    def unk_id(self) -> int:
        """Id of [UNK]."""
        return self.ids["[UNK]"]

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""
        return self.ids["[CLS]"]

    @property
    def sep_id(self) -> int:
        """Id of [SEP]."""
        return self.ids["[SEP]"]

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self.ids["[MASK]"]

    def is_continuation(self) -> np.ndarray:
        """bool [size]: entries that continue a word."""
        table = np.zeros(self.size, dtype=bool)
        table[[index for token, index in self.ids.items() if token.startswith(CONTINUATION_PREFIX)]] = True
        return table


def load_vocabulary(path: Path) -> Vocabulary:
    """Read vocab.txt; DataError when it is unreadable, not UTF-8 or lacks a special token."""
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot read the vocabulary: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the vocabulary is not UTF-8 (byte {error.start})") from error
    if lines[-1] == "":
        lines.pop()
    ids = {line.rstrip("\r"): index for index, line in enumerate(lines)}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise DataError(
            f"{path}: no entry {', '.join(missing)} in a vocabulary of {len(lines)}",
            "use the vocab.txt that belongs to the model",
        )
    return Vocabulary(path=path, ids=ids, size=len(lines), sha256=hashlib.sha256(content).hexdigest())
