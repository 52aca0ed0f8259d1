"""Fingerprints of texts: the same for texts that differ only in case, spacing, punctuation or Unicode form."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

VERSION = 1
"""Part of the key of whatever depends on fingerprints: raise it when the rules change."""
EMPTY = 0
"""Fingerprint of a text without a letter or digit."""
_NO_LETTER_OR_DIGIT = re.compile(r"[\W_]+")


def fingerprint(text: str) -> int:
    """A number below 2^64: the first 8 bytes of BLAKE2b over the letters and digits of the case-folded NFKC form."""
    kept = _NO_LETTER_OR_DIGIT.sub("", unicodedata.normalize("NFKC", text).casefold())
    if not kept:
        return EMPTY
    return int.from_bytes(hashlib.blake2b(kept.encode("utf-8"), digest_size=8).digest(), "little")


def fingerprints(texts: Iterable[str]) -> np.ndarray:
    """The distinct fingerprints of texts, ascending: uint64. Texts without a letter or digit have none."""
    found = np.fromiter((fingerprint(text) for text in texts), dtype=np.uint64)
    return np.setdiff1d(found, np.array([EMPTY], dtype=np.uint64))
