"""Close-ups: the box is whole and uncovered, small ones are enlarged, and the surroundings stay visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl.boxes import as_boxes
from etl.imaging.close_up import SIDE, close_up, overview

RED, YELLOW = (255, 60, 60), (255, 214, 10)


def scene(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A grey image with a blue object."""
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = (0, 0, 255)
    return pixels


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


@pytest.mark.parametrize("corner", [(0, 0), (100, 60), (296, 196)])
@pytest.mark.parametrize("side", [1, 4, 20])
def test_a_small_object_is_enlarged_whole_and_not_covered(corner: tuple[int, int], side: int) -> None:
    x, y = min(corner[0], 300 - side), min(corner[1], 200 - side)
    box = (x, y, x + side, y + side)
    picture = close_up(scene(300, 200, box), as_boxes([box]), box)
    zoom = SIDE // 64
    assert picture.shape == (64 * zoom, 64 * zoom, 3)
    blue, border = count(picture, (0, 0, 255)), x in (0, 300 - side) or y in (0, 200 - side)
    if border:  # the line runs along the picture's border there
        assert blue >= (side * zoom - 1) ** 2
    else:
        assert blue == (side * zoom) ** 2
        assert count(picture, RED) == 4 * (side * zoom + 5)


def test_the_context_is_three_times_the_box_within_the_image() -> None:
    box = (500, 400, 600, 440)
    picture = close_up(scene(1000, 800, box), as_boxes([box]), box)
    assert picture.shape == (SIDE, SIDE, 3)
    assert count(picture, (0, 0, 255)) == pytest.approx(SIDE**2 * 100 * 40 / 300**2, rel=0.05)


def test_the_other_boxes_are_yellow_and_the_marked_one_is_red_even_if_they_are_equal() -> None:
    box = (100, 100, 110, 108)
    other = (120, 100, 130, 108)
    picture = close_up(scene(400, 300, box), as_boxes([box, box, other]), box)
    assert count(picture, RED) == 2 * (4 * 10 + 5) + 2 * (4 * 8 + 5)
    assert count(picture, YELLOW) == 2 * (2 * (4 * 10 + 1) + 2 * (4 * 8 + 1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.floats(-400, 400), st.floats(-400, 400), st.floats(0, 500),
    st.floats(0, 500),
)  # fmt: skip
def test_any_box_of_any_image_gives_a_picture_with_its_line(
    width: int, height: int, x: float, y: float, w: float, h: float
) -> None:
    picture = close_up(np.zeros((height, width, 3), np.uint8), as_boxes([]), (x, y, x + w, y + h))
    assert max(picture.shape[:2]) <= SIDE
    assert count(picture, RED) > 0
    assert max(overview(picture, as_boxes([(x, y, x + w, y + h)]), 100).shape[:2]) <= 100
