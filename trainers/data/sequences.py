"""From a text's token ids to the sequences that the model reads: one, or one per fraction of a long text (Sun et al. 2019, section 5.1).

Shared by training, evaluation and prediction.
"""

from __future__ import annotations

import numpy as np

from configs.errors import ConfigError
from configs.schema import ClassifierStage
from trainers.data.truncate import assemble, pair_lengths, truncate_pair, truncate_single
from trainers.data.vocabulary import Vocabulary

Sequence = tuple[np.ndarray, np.ndarray]
"""Token ids (int32, with special tokens) and token types (uint8) of one sequence."""


class SequenceMaker:
    """Cuts texts as a stage asks for: to `max_length`, or into fractions of that length."""

    def __init__(self, vocabulary: Vocabulary, stage: ClassifierStage) -> None:
        self._vocabulary = vocabulary
        self._stage = stage

    def __call__(self, first: np.ndarray, second: np.ndarray | None = None) -> list[Sequence]:
        """The sequences of a text, or of a pair, given as token ids without special tokens. Several only with `hierarchical`.

        Raises ConfigError for a pair with `hierarchical`.
        """
        stage, vocabulary = self._stage, self._vocabulary
        if stage.hierarchical is not None:
            check_single(second is not None)
            pieces = fractions(first, stage.max_length, stage.max_fractions)
            return [assemble(piece, None, vocabulary.cls_id, vocabulary.sep_id) for piece in pieces]
        if second is None:
            first = truncate_single(first, stage.max_length, stage.truncation.head, stage.truncation.tail)
        else:
            first, second = truncate_pair(first, second, stage.max_length)
        return [assemble(first, second, vocabulary.cls_id, vocabulary.sep_id)]


def check_single(has_pairs: bool) -> None:
    """Raises ConfigError for pairs, which are not cut into fractions."""
    if has_pairs:
        raise ConfigError(
            "hierarchical: fractions are for single texts, and this data has pairs", "leave hierarchical out"
        )


def fractions(ids: np.ndarray, max_length: int, most: int | None) -> list[np.ndarray]:
    """The ceil(n / L) consecutive fractions of n tokens, L = max_length - 2 each and the last one shorter; at most the first `most`.

    A text without tokens is one empty fraction.
    """
    room = max_length - 2
    starts = range(0, max(1, len(ids)), room)[:most]
    return [ids[start : start + room] for start in starts]


def num_fractions(lengths: np.ndarray, stage: ClassifierStage) -> np.ndarray:
    """int64: sequences of texts of the given lengths in tokens; all 1 without `hierarchical`."""
    if stage.hierarchical is None:
        return np.ones(len(lengths), dtype=np.int64)
    counts = np.maximum(1, -(-lengths.astype(np.int64) // (stage.max_length - 2)))
    return counts if stage.max_fractions is None else np.minimum(counts, stage.max_fractions)


def input_lengths(lengths: np.ndarray, seconds: np.ndarray | None, stage: ClassifierStage) -> np.ndarray:
    """int64 [rows]: tokens of every row as the model reads it, special tokens of all its sequences included.

    `lengths`, `seconds`: tokens of each row's text, and of its second text where the data has pairs. Raises ConfigError as above.
    """
    if seconds is None:
        counts = num_fractions(lengths, stage)
        kept: np.ndarray = np.minimum(lengths, counts * (stage.max_length - 2)) + 2 * counts
        return kept
    check_single(stage.hierarchical is not None)
    pairs = zip(lengths.tolist(), seconds.tolist(), strict=True)
    return np.array([sum(pair_lengths(a, b, stage.max_length - 3)) + 3 for a, b in pairs], dtype=np.int64)
