"""Ports that are asked for and not there."""

from __future__ import annotations

import pytest

from cluster import ports


def test_more_ports_than_there_are_is_no_crash() -> None:
    with pytest.raises(OSError, match="no 12001 consecutive free ports"):
        ports.find_free_block(12_001)
