"""Truncation by hand-counted tokens, and against a literal one-token-at-a-time loop."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.data.truncate import assemble, pair_lengths, truncate_pair, truncate_single

TEXT = np.arange(1000, 2000, dtype=np.int32)  # 1,000 tokens


def test_head_is_the_first_510_of_512() -> None:
    assert truncate_single(TEXT, 512, None, None).tolist() == list(range(1000, 1510))


def test_head_128_keeps_128_and_the_last_382() -> None:
    kept = truncate_single(TEXT, 512, 128, None)
    assert kept.tolist() == [*range(1000, 1128), *range(1618, 2000)]
    assert len(kept) == 128 + 382 == 510


def test_tail_382_is_the_same_cut_named_from_the_other_side() -> None:
    assert np.array_equal(truncate_single(TEXT, 512, None, 382), truncate_single(TEXT, 512, 128, None))


def test_head_0_is_the_tail_and_tail_0_the_head() -> None:
    assert truncate_single(TEXT, 512, 0, None).tolist() == list(range(1490, 2000))
    assert truncate_single(TEXT, 512, None, 0).tolist() == list(range(1000, 1510))


@pytest.mark.parametrize(("length", "kept"), [(0, 0), (1, 1), (509, 509), (510, 510), (511, 510), (1000, 510)])
def test_only_texts_above_the_budget_are_cut(length: int, kept: int) -> None:
    assert len(truncate_single(TEXT[:length], 512, 128, None)) == kept


def test_pairs_equal_the_literal_loop() -> None:
    for length_a in range(12):
        for length_b in range(12):
            for room in range(1, 16):
                a, b = list(range(length_a)), list(range(length_b))
                while len(a) + len(b) > room:
                    (a if len(a) > len(b) else b).pop()
                assert pair_lengths(length_a, length_b, room) == (len(a), len(b))


def test_pairs_drop_from_the_end_of_the_longer() -> None:
    a, b = truncate_pair(TEXT[:100], TEXT[500:530], 128)
    assert a.tolist() == list(range(1000, 1095))  # 125 - 30
    assert b.tolist() == list(range(1500, 1530))


def test_assembly_of_a_single_text_and_a_pair() -> None:
    ids, types = assemble(TEXT[:3], None, cls_id=101, sep_id=102)
    assert (ids.tolist(), types.tolist()) == ([101, 1000, 1001, 1002, 102], [0, 0, 0, 0, 0])
    ids, types = assemble(TEXT[:2], TEXT[5:8], cls_id=101, sep_id=102)
    assert ids.tolist() == [101, 1000, 1001, 102, 1005, 1006, 1007, 102]
    assert types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (ids.dtype, types.dtype) == (np.int32, np.uint8)
