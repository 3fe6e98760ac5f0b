from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from etl import boxes
from etl.plan import GRID, Plan, TilePlan, Window, floor16, window_starts

SIDE = st.integers(32, 1400)
OVERLAP = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.5])
LENGTH = st.integers(1, 5000)


def plan(size: int, overlap: float, *scales: float) -> TilePlan:
    return TilePlan(size=size, overlap=overlap, min_visibility=0.4, scales=scales or (1.0,))


@given(LENGTH, SIDE, OVERLAP)
def test_windows_start_on_the_grid_and_cover_every_pixel(length: int, side: int, overlap: float) -> None:
    found = window_starts(length, side, overlap)
    assert found[0] == 0
    assert all(start % GRID == 0 for start in found)
    assert all(0 < b - a <= max(side * (1 - overlap), GRID) + 1e-6 for a, b in pairwise(found))
    assert length <= found[-1] + side
    assert found == [0] or length - found[-1] > side - GRID, "the last is at most 15 px smaller"


@given(LENGTH, SIDE, OVERLAP, st.floats(0, 1), st.floats(0, 1))
def test_an_object_up_to_the_overlap_lies_whole_in_a_window(
    length: int, side: int, overlap: float, place: float, share: float
) -> None:
    long = min(overlap * side, length) * share
    low = place * (length - long)
    assert any(start <= low and low + long <= start + side + 1e-6 for start in window_starts(length, side, overlap))


@given(LENGTH, LENGTH, st.sampled_from([1.0, 0.5, 0.3, 0.25]))
def test_no_window_leaves_the_image_and_no_two_are_alike(width: int, height: int, scale: float) -> None:
    found = plan(640, 0.2, scale).windows(width, height, scale)
    assert len(set(found)) == len(found)
    for x0, y0, x1, y1 in found:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert max(x1 - x0, y1 - y0) <= round(640 / scale)


@given(LENGTH, LENGTH, SIDE, OVERLAP, st.sampled_from([(1.0,), (1.0, 0.5), (1.0, 0.25, 0.125), (0.5, 1.0)]))
@settings(max_examples=60, deadline=None)
def test_every_scale_covers_the_image_unless_a_finer_one_shows_it_in_one_window(
    width: int, height: int, size: int, overlap: float, scales: tuple[float, ...]
) -> None:
    cut = plan(size, overlap, *scales)
    for scale in scales:
        found = cut.windows(width, height, scale)
        columns, rows = (sorted({(each[a], each[a + 2]) for each in found}) for a in (0, 1))
        if any(len(cut.windows(width, height, finer)) == 1 for finer in scales if finer > scale):
            assert found == []
            continue
        assert {(x, y) for x, y, *_ in found} == {(x, y) for x, _ in columns for y, _ in rows}, "a full grid"
        for spans, length in ((columns, width), (rows, height)):
            assert (spans[0][0], spans[-1][1]) == (0, length)
            assert all(after[0] <= before[1] for before, after in pairwise(spans))
            assert all(start % GRID == 0 for start, _ in spans)


@given(
    st.lists(st.integers(0, 2000 * 64), min_size=4, max_size=4),
    st.sampled_from([1.0, 0.5, 0.25]),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_boxes_map_from_tile_to_image_and_back_exactly(corners: list[int], scale: float, column: int, row: int) -> None:
    box = boxes.as_boxes([[value / 64 for value in corners]])  # exact in binary, as every window and power of two is
    window = Window(16 * column, 16 * row, 16 * column + 640, 16 * row + 640)
    in_tile = boxes.to_window(box, window, scale)
    assert boxes.from_window(in_tile, window, scale).tolist() == box.tolist()
    assert boxes.to_window(boxes.from_window(in_tile, window, scale), window, scale).tolist() == in_tile.tolist()


def test_windows_cover_an_image_row_by_row() -> None:
    assert plan(64, 0.25).windows(100, 70, 1) == [
        Window(0, 0, 64, 64), Window(48, 0, 100, 64), Window(0, 16, 64, 70), Window(48, 16, 100, 70)
    ]  # fmt: skip
    painted = np.zeros((70, 100), bool)
    for x0, y0, x1, y1 in plan(64, 0.25).windows(100, 70, 1):
        painted[y0:y1, x0:x1] = True
    assert painted.all()


def test_an_image_no_larger_than_a_tile_is_one_window() -> None:
    assert plan(640, 0.2).windows(640, 17, 1) == [Window(0, 0, 640, 17)]


def test_a_coarser_scale_sees_more_of_the_source() -> None:
    assert plan(640, 0.2).windows(1280, 1280, 0.5) == [Window(0, 0, 1280, 1280)]
    assert len(plan(640, 0.2).windows(1280, 1280, 1.0)) > 4


@pytest.mark.parametrize(("value", "expected"), [(15.9, 0), (16, 16), (31, 16), (512.0000001, 512), (0.8 * 640, 512)])
def test_floor16_is_the_multiple_of_16_not_above(value: float, expected: int) -> None:
    assert floor16(value) == expected


def test_a_plan_reads_back_from_json_and_is_closed_to_unknown_keys() -> None:
    pinned = Plan(
        split_salt=3, near_duplicates=True, categories=("0", "no"), tile=plan(640, 0.2), negatives=0.1, codec="c-1"
    )
    assert Plan.model_validate(pinned.model_dump(mode="json")) == pinned
    with pytest.raises(ValidationError):
        Plan.model_validate({**pinned.model_dump(mode="json"), "tiles": 3})
