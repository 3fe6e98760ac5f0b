from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from etl.stages.splitting import hashes
from etl.stages.splitting.hashes import similar_pairs, similar_to

VALUES = st.lists(st.integers(0, 2**64 - 1), max_size=20)
BITS = st.integers(0, 3)


def around(base: int) -> list[int]:
    """Hashes 0 to 4 bits from one."""
    return [base, base ^ 1, base ^ (1 << 17 | 1 << 63), base ^ (1 << 17 | 1 << 33 | 1 << 60), base ^ 0b1111]


@given(VALUES, st.integers(0, 2**64 - 1), BITS)
def test_similar_pairs_are_all_pairs_few_bits_apart_each_once(values: list[int], base: int, bits: int) -> None:
    values = sorted({*values, *around(base)})
    found = [pair for a, b in similar_pairs(np.array(values, np.uint64), bits) for pair in zip(a, b, strict=True)]
    expected = {(a, b) for a, b in combinations(range(len(values)), 2) if (values[a] ^ values[b]).bit_count() <= bits}
    assert sorted(found) == sorted(expected)


@given(VALUES, VALUES, st.integers(0, 2**64 - 1), BITS)
def test_similar_to_finds_the_hashes_near_any_other(values: list[int], others: list[int], base: int, bits: int) -> None:
    values = values + around(base)
    others = [*others, base]
    found = similar_to(np.array(values, np.uint64), np.array(others, np.uint64), bits)
    assert found.tolist() == [any((a ^ b).bit_count() <= bits for b in others) for a in values]


def test_pairs_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(64, dtype=np.uint64)
    whole = [pair for a, b in similar_pairs(values) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    monkeypatch.setattr(hashes, "_PAIRS", 7)
    pieces = [pair for a, b in similar_pairs(values) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert sorted(pieces) == sorted(whole)


def test_no_hash_is_similar_to_none() -> None:
    none = np.array([], np.uint64)
    assert similar_to(none, none).tolist() == []
    assert similar_to(np.array([1], np.uint64), none).tolist() == [False]
    assert [*similar_pairs(none)] == []


def test_thousands_of_hashes_that_differ_in_one_band_take_seconds() -> None:
    values = np.arange(5_000, dtype=np.uint64)
    start = time.process_time()
    assert similar_to(values, values[::-1].copy()).all()
    assert sum(len(a) for a, _ in similar_pairs(values)) > 5_000
    assert time.process_time() - start < 20
