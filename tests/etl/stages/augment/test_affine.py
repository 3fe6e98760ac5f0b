from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.config import Augment
from etl.plan import Window
from etl.stages.augment import affine
from etl.stages.augment.labelled_image import LabelledImage


@given(
    st.lists(st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(1, 30)] * 2), max_size=4),
    st.sampled_from([(1, 1), (-1, 1), (1, -1), (-1, -1)]),
)
def test_a_mirrored_box_is_exact(corners: list, mirror: tuple[int, int]) -> None:
    boxes = bx.as_boxes([[x, y, x + w, y + h] for x, y, w, h in corners])
    matrix = np.array([[mirror[0], 0, 64 if mirror[0] < 0 else 0], [0, mirror[1], 64 if mirror[1] < 0 else 0]], float)
    expected = boxes.copy()
    if mirror[0] < 0:
        expected[:, [0, 2]] = 64 - boxes[:, [2, 0]]
    if mirror[1] < 0:
        expected[:, [1, 3]] = 64 - boxes[:, [3, 1]]
    np.testing.assert_allclose(affine.transform_boxes(boxes, matrix), expected, atol=1e-9)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_quarter_turn_swaps_the_sides(degrees: int) -> None:
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
    wh = bx.size(affine.transform_boxes(bx.as_boxes([[10, 10, 30, 14]]), matrix))
    np.testing.assert_allclose(wh, [[4, 20]] if degrees in (90, 270) else [[20, 4]], atol=1e-9)


@given(st.floats(-180, 180), st.floats(1, 50), st.floats(1, 50))
def test_a_turned_box_keeps_its_centre_and_holds_no_more_than_the_turned_corners(
    degrees: float, w: float, h: float
) -> None:
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 7], [np.sin(turn), np.cos(turn), 3]])
    box = bx.as_boxes([[5, 6, 5 + w, 6 + h]])
    (found,) = affine.transform_boxes(box, matrix)
    corners = np.array([[5, 6], [5 + w, 6], [5, 6 + h], [5 + w, 6 + h]]) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose((found[:2] + found[2:]) / 2, corners.mean(axis=0), atol=1e-9)
    assert (found[:2] >= corners.min(axis=0) - 1e-9).all()
    assert (found[2:] <= corners.max(axis=0) + 1e-9).all()
    assert (found[2:] - found[:2] >= min(w, h) - 1e-9).all()


@given(st.floats(-180, 180))
def test_an_ignored_region_keeps_its_corners_when_turned(degrees: float) -> None:
    pixels = np.zeros((120, 160, 3), np.uint8)
    region, turn = bx.as_boxes([[60, 50, 90, 60]]), np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 80], [np.sin(turn), np.cos(turn), 80]])
    seen = affine.render(
        LabelledImage("p", pixels, region, np.ones(1, bool)), affine.AffineView(matrix, (200, 200), {}), 0.4
    )
    corners = np.array([[60, 50], [90, 50], [60, 60], [90, 60]]) @ matrix[:, :2].T + matrix[:, 2]
    expected = bx.clip(bx.as_boxes([*corners.min(0), *corners.max(0)]), (0, 0, 200, 200))
    np.testing.assert_allclose(seen.ignore, expected[bx.area(expected) > 0], atol=1e-9)


@given(
    st.lists(
        st.tuples(st.floats(20, 60), st.floats(20, 60), st.floats(1, 40), st.floats(1, 40)), min_size=1, max_size=8
    ),
    st.floats(0.8, 1.25),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_no_box_below_16_px_grows_by_more_than_a_pixel_when_it_is_turned(corners: list, zoom: float, seed: int) -> None:
    boxes = bx.as_boxes([[x, y, x + w, y + h] for x, y, w, h in corners])
    labelled = LabelledImage("p", np.zeros((100, 100, 3), np.uint8), boxes, np.zeros(len(boxes), bool))
    pose = affine.choose_transform(
        labelled, Window(16, 16, 80, 80), Augment(rotate=180), np.random.default_rng(seed), zoom
    )
    assert abs(pose.angle) <= 180
    turned = bx.size(affine.transform_boxes(boxes, affine.make_view(np.array([48.0, 48.0]), (64, 64), pose).matrix))
    straight = bx.size(boxes) * zoom
    if round(pose.angle / 90) % 2:
        straight = straight[:, ::-1]
    small = bx.side_length(boxes) < 16
    assert (turned[small] <= straight[small] + 1 + 1e-6).all()


def test_boxes_that_bear_it_are_turned_as_far_as_asked() -> None:
    for box in ([40, 40, 50, 50], [40, 30, 60, 70]):  # square; or large
        labelled = LabelledImage("p", np.zeros((100, 100, 3), np.uint8), bx.as_boxes(box), np.zeros(1, bool))
        rng = np.random.default_rng(0)
        poses = [
            affine.choose_transform(labelled, Window(16, 16, 80, 80), Augment(rotate=15), rng, 1.0) for _ in range(200)
        ]
        assert max(abs(pose.angle) for pose in poses) > 14


@given(st.floats(-50, 200), st.floats(-50, 200), st.floats(10, 150), st.floats(10, 150))
def test_a_view_that_fits_is_kept_inside_the_picture(x: float, y: float, w: float, h: float) -> None:
    labelled = LabelledImage("p", np.zeros((90, 120, 3), np.uint8), bx.as_boxes([]), np.zeros(0, bool))
    cx, cy = affine.clamp_centre(np.array([x, y]), (w, h), labelled)
    for centre, size, whole in ((cx, w, 120), (cy, h, 90)):
        assert (
            centre - size / 2 >= -1e-9 and centre + size / 2 <= whole + 1e-9 if size <= whole else centre == whole / 2
        )
