"""The box of a segmentation is the hull of its polygons or the bounds of its mask."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pycocotools import mask as reference

from etl.formats.coco_mask import extent, polygons


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 20, 30, 20, 30, 40]],
        [10, 20, 30, 20, 30, 40],
        [[10, 20], [30, 20], [30, 40]],
        [[[10, 20], [30, 20], [30, 40]]],
        [["10", "20", "30.0", "20", "30", "4e1"]],
        [[10, 20, 15, 20, 15, 40], [28, 20, 30, 20, 30, 25]],
    ],
)
def test_the_box_of_polygons_is_their_hull(segmentation):
    assert extent(segmentation) == ((10, 20, 30, 40), None)


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, float("nan")]], [[1, 2, 3, 4, 5, None]],
        [[0, 0, 9, 0, 9, 9], [1, 2]], "x", 7, {}, {"size": [9, 9]}, {"size": [9, 9], "counts": [81]},
        {"size": [9, 9], "counts": [1, 2]}, {"size": [9], "counts": [4, 5]}, {"size": [3, 3], "counts": [10, -1]},
        {"size": [3, 3], "counts": "~~~"}, {"size": [3, 3], "counts": "o"}, {"size": ["a", 3], "counts": [0, 9]},
        {"size": [0, 0], "counts": [0]}, {"size": [3, 3], "counts": [4.5, 4.5]},
    ],
)  # fmt: skip
def test_what_is_no_outline_and_no_mask_has_no_box(segmentation):
    assert extent(segmentation) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_both_forms_of_a_mask_have_the_box_and_the_area_of_its_pixels(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    pixels = np.array(bits).reshape(height, width)
    encoded = reference.encode(np.asfortranarray(pixels.astype(np.uint8)))
    text = {"size": [height, width], "counts": encoded["counts"].decode()}
    down = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], down])))
    runs = np.diff(np.concatenate([[0], changes, [height * width]])).tolist()
    found = [extent(text), extent({"size": [height, width], "counts": runs})]
    if not pixels.any():
        assert found == [None, None]
        return
    x, y, w, h = reference.toBbox(encoded).tolist()
    assert found == [((x, y, x + w, y + h), float(pixels.sum()))] * 2


def test_a_large_mask_in_text_is_read():
    pixels = np.zeros((900, 1600), np.uint8)
    pixels[40:860:3, 17:1500] = 1
    encoded = reference.encode(np.asfortranarray(pixels))
    found = extent({"size": [900, 1600], "counts": encoded["counts"].decode()})
    assert found == ((17, 40, 1500, 860), float(pixels.sum()))


def test_polygons_are_flat_lists():
    assert polygons([[[1, 2], [3, 4], [5, 6]]]) == [(1, 2, 3, 4, 5, 6)]
