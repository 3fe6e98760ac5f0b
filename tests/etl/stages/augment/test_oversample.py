from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from etl.config import Augment
from etl.plan import Rate
from etl.stages.augment import oversample

labels = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60).map(
    lambda rows: np.array(rows, dtype=np.float64)
)


def after(tiles: np.ndarray, rate: Rate) -> np.ndarray:
    """Small and other labels of base tiles and of what the rate makes of them, on average."""
    tiles = tiles[tiles.sum(axis=1) > 0]
    share = tiles[:, 0] / tiles.sum(axis=1)
    return tiles.sum(axis=0) + (oversample.average_copies(rate, share)[:, None] * tiles).sum(axis=0)


@settings(max_examples=60)
@given(labels, st.integers(1, 3), st.floats(1, 4))
def test_small_objects_never_come_out_rarer_than_in_base_tiles(tiles: np.ndarray, copies: int, boost: float) -> None:
    config = Augment(copies=copies, oversample_small=boost)
    rate = oversample.choose_rate(tiles.sum(axis=0), tiles, config)
    small, other = after(tiles, rate)
    before = tiles.sum(axis=0)
    if before.sum():
        wanted = before[0] * (1 + copies * boost) / (before * (1 + copies * np.array([boost, 1]))).sum()
        assert small / (small + other) == pytest.approx(wanted, abs=0.001) or small / (small + other) <= wanted
        assert small / (small + other) >= before[0] / before.sum() - 1e-6


def test_where_tiles_differ_the_asked_histogram_is_met() -> None:
    rng = np.random.default_rng(1)
    tiles = np.column_stack([rng.integers(0, 12, 400), rng.integers(0, 12, 400)]).astype(np.float64)
    config = Augment(copies=1, oversample_small=2.0)
    small, other = after(tiles, oversample.choose_rate(tiles.sum(axis=0), tiles, config))
    base = tiles.sum(axis=0)
    assert small / (small + other) == pytest.approx(base[0] * 3 / (base[0] * 3 + base[1] * 2), abs=0.001)


@given(st.lists(st.floats(1, 200), min_size=1, max_size=9), st.floats(0, 3), st.floats(-2, 2))
def test_a_tile_gives_as_many_copies_as_its_rate_says_on_average(sides: list[float], base: float, slope: float) -> None:
    rate = Rate(base=base, slope=slope, most=8.0)
    lengths = np.array(sides)
    counts = [oversample.count_copies(f"{number:x}", lengths, rate) for number in range(400)]
    wanted = float(oversample.average_copies(rate, np.array(oversample.small_share(lengths))))
    assert np.mean(counts) == pytest.approx(wanted, abs=0.12)
    assert max(counts) - min(counts) <= 1
    assert oversample.count_copies("a", np.array([]), rate) == 0


def test_the_asked_histogram_counts_small_labels_more_often() -> None:
    asked = oversample.target_sizes([1, 1, 1, 1, 1], Augment(copies=2, oversample_small=3.0))
    assert dict(zip(boxes.BUCKETS, asked.tolist(), strict=True)) == {
        "very_tiny": 7, "tiny": 7, "small": 7, "medium": 3, "large": 3,
    }  # fmt: skip
    assert oversample.choose_rate(np.ones(2), np.ones((3, 2)), Augment(copies=0)).base == 0
