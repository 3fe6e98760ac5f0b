from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from etl.plan import Cut
from etl.stages.splitting.blocks import GUARDED, Shares, block_codes, block_names

FRAMES = np.arange(1000, dtype=np.int64)


def cut(period: int = 100, guard: int = 5) -> Cut:
    return Cut(period=period, guard=guard, separates=True, near_duplicates=True)


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.0), (0.2, 0.1), (0.5, 0.0), (0.0, 0.3)])
def test_each_split_gets_its_share_of_what_the_guard_bands_leave(val: float, test: float) -> None:
    shares = Shares.of(val, test)
    codes = block_codes(FRAMES, "v", cut(), 3, shares)
    left = codes != GUARDED
    assert (codes == GUARDED).sum() == 10 * 5 * len(shares.asked)
    for code, share in enumerate(shares):
        assert (codes == code).sum() / left.sum() == pytest.approx(share, abs=0.03)


@given(st.integers(10, 400), st.integers(0, 3), st.integers(0, 2**31))
def test_frames_of_different_splits_are_a_guard_band_apart(period: int, guard: int, salt: int) -> None:
    codes = block_codes(FRAMES, "v", cut(period, guard), salt, Shares.of(0.2, 0.1))
    used = FRAMES[codes != GUARDED]
    kinds = codes[codes != GUARDED]
    changes = np.flatnonzero(np.diff(kinds))
    assert (used[changes + 1] - used[changes] > guard).all()


@given(st.sets(st.integers(0, 10**12), min_size=1), st.sets(st.integers(0, 10**12)), st.integers(0, 2**31))
def test_frames_that_come_later_move_no_other(before: set[int], later: set[int], salt: int) -> None:
    shares = Shares.of(0.2, 0.0)
    first = np.array(sorted(before), np.int64)
    both = np.array(sorted(before | later), np.int64)
    codes = dict(zip(both.tolist(), block_codes(both, "v", cut(), salt, shares).tolist(), strict=True))
    assert [codes[frame] for frame in first.tolist()] == block_codes(first, "v", cut(), salt, shares).tolist()


def test_the_salt_and_the_name_decide_where_blocks_start() -> None:
    starts = {
        block_codes(FRAMES, name, cut(), salt, Shares.of(0.2, 0.0)).tobytes() for name in "vw" for salt in range(5)
    }
    assert len(starts) == 10


def test_a_block_is_named_by_video_repetition_and_split() -> None:
    codes = np.ones(100, np.int64)
    names = set(block_names(FRAMES[:100], "v", cut(), 0, codes))
    assert len(names) <= 2
    assert all(name.startswith("v#") and name.endswith(".val") for name in names)
