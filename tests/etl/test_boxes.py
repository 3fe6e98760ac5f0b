from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from etl import boxes as bx


@st.composite
def boxes(draw: st.DrawFn, least: int = 0) -> bx.Boxes:
    found = []
    for _ in range(draw(st.integers(least, 5))):
        x, y = draw(st.floats(-200, 200)), draw(st.floats(-200, 200))
        found.append([x, y, x + draw(st.floats(0.5, 100)), y + draw(st.floats(0.5, 100))])
    return bx.as_boxes(found)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x, y = draw(st.integers(-100, 100)), draw(st.integers(-100, 100))
    return x, y, x + draw(st.integers(1, 200)), y + draw(st.integers(1, 200))


def test_no_boxes_are_an_array_of_no_boxes() -> None:
    assert bx.as_boxes([]).shape == (0, 4)
    assert bx.iou(bx.as_boxes([]), bx.as_boxes([[0, 0, 1, 1]])).shape == (0, 1)
    assert bx.clip(bx.as_boxes([]), (0, 0, 4, 4)).shape == (0, 4)
    assert bx.from_rows([]).shape == (0, 4)
    assert bx.from_table(pa.table({name: pa.array([], pa.float64()) for name in bx.XYXY})).shape == (0, 4)


@given(boxes())
def test_rows_and_tables_give_their_boxes_in_order(xyxy: bx.Boxes) -> None:
    columns = dict(zip(reversed(bx.XYXY), xyxy.T[::-1], strict=True)) | {"category": ["car"] * len(xyxy)}
    table = pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)])  # columns of two chunks
    for found in (bx.from_table(table), bx.from_rows(table.to_pylist())):
        assert found.dtype == np.float64
        assert found.tolist() == xyxy.tolist()


def test_whole_pixels_become_floats_and_an_unknown_side_is_not_a_number() -> None:
    table = pa.table({"x0": pa.array([1], pa.int32()), "y0": [2], "x1": [None], "y1": [4.5]})
    table = table.set_column(2, "x1", table["x1"].cast(pa.float64()))
    np.testing.assert_array_equal(bx.from_table(table), [[1.0, 2.0, np.nan, 4.5]])


@given(boxes(), windows(), st.sampled_from([1.0, 0.5, 0.3, 2.0]))
def test_from_window_undoes_to_window(xyxy: bx.Boxes, window: tuple[int, ...], scale: float) -> None:
    back = bx.from_window(bx.to_window(xyxy, window, scale), window, scale)
    np.testing.assert_allclose(back, xyxy, atol=1e-9)


def test_to_window_puts_a_box_into_sample_pixels() -> None:
    found = bx.to_window(bx.as_boxes([[110, 60, 130, 80]]), (100, 50, 200, 150), 0.5)
    assert found.tolist() == [[5, 5, 15, 15]]


@given(boxes(), windows())
def test_clipping_stays_inside_and_twice_is_once(xyxy: bx.Boxes, window: tuple[int, ...]) -> None:
    cut = bx.clip(xyxy, window)
    assert (cut[:, :2] >= window[:2]).all()
    assert (cut[:, 2:] <= window[2:]).all()
    assert (cut[:, 2:] >= cut[:, :2]).all()
    np.testing.assert_array_equal(bx.clip(cut, window), cut)


def test_each_box_can_be_clipped_to_a_window_of_its_own() -> None:
    xyxy = bx.as_boxes([[0, 0, 10, 10], [0, 0, 10, 10]])
    window = (np.array([2, 5]), np.array([0, 0]), np.array([20, 20]), np.array([4, 20]))
    assert bx.clip(xyxy, window).tolist() == [[2, 0, 10, 4], [5, 0, 10, 10]]


@given(boxes(), windows())
def test_visibility_is_the_share_of_the_intersection(xyxy: bx.Boxes, window: tuple[int, ...]) -> None:
    shared = bx.intersection(xyxy, bx.as_boxes([window]))[:, 0]
    np.testing.assert_allclose(bx.visibility(xyxy, window), shared / bx.area(xyxy), atol=1e-12)


def test_a_box_without_area_is_not_visible_and_not_a_division_by_zero() -> None:
    with np.errstate(all="raise"):
        assert bx.visibility(bx.as_boxes([[1, 1, 1, 5]]), (0, 0, 9, 9)).tolist() == [0]
        assert bx.iou(bx.as_boxes([[1, 1, 1, 1]]), bx.as_boxes([[1, 1, 1, 1]])).tolist() == [[0]]


def test_inverted_sides_count_as_zero() -> None:
    assert bx.area(bx.as_boxes([[5, 5, 1, 9]])).tolist() == [0]


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_at_most_one(a: bx.Boxes, b: bx.Boxes) -> None:
    found = bx.iou(a, b)
    np.testing.assert_allclose(found, bx.iou(b, a).T)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()


@given(boxes(least=1))
def test_a_box_overlaps_itself_wholly(xyxy: bx.Boxes) -> None:
    np.testing.assert_allclose(np.diag(bx.iou(xyxy, xyxy)), 1)


def test_a_shift_of_one_pixel_costs_a_box_of_four_more_than_half_its_overlap() -> None:
    assert bx.iou(bx.as_boxes([[0, 0, 4, 4]]), bx.as_boxes([[1, 1, 5, 5]]))[0, 0] == pytest.approx(9 / 23)


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (0, "very_tiny"), (7.99, "very_tiny"), (8, "tiny"), (15.9, "tiny"), (16, "small"), (31.9, "small"),
        (32, "medium"), (95.9, "medium"), (96, "large"), (5000, "large"),
    ],
)  # fmt: skip
def test_the_lower_edge_belongs_to_the_bucket(length: float, name: str) -> None:
    assert bx.BUCKETS[int(bx.bucket(length))] == name


def test_the_hull_of_a_polygon_touches_its_outermost_points() -> None:
    assert bx.hull([3, 9, 1, 4, 8, 5]) == (1, 4, 8, 9)
