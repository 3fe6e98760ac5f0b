from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import augment as aug, boxes as bx
from etl.config import Augment
from etl.plan import TilePlan, Window

PLAN = TilePlan(size=64, overlap=0.2, min_visibility=0.4, scales=(1.0,))
STILL = Augment(rotate=0, crop=False, copy_paste=0, quality=False)
MIDDLE = Window(48, 32, 112, 96)
NOTHING_IGNORED = np.zeros(3, bool)


def squares(width: int = 160, height: int = 120) -> tuple[np.ndarray, bx.Boxes]:
    """Grey noise with three bright squares, and their boxes."""
    pixels = np.random.default_rng(0).integers(60, 90, (height, width, 3)).astype(np.uint8)
    boxes = bx.as_boxes([[70, 50, 82, 62], [90, 40, 98, 48], [60, 70, 76, 86]])
    for x0, y0, x1, y1 in boxes.astype(int):
        pixels[y0:y1, x0:x1] = 250
    return pixels, boxes


def made(config: Augment, seed: int, window: Window = MIDDLE) -> aug.Scene:
    pixels, boxes = squares()
    return aug.augment(pixels, boxes, NOTHING_IGNORED, window, PLAN, config, seed)


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
    np.testing.assert_allclose(aug.turn_boxes(boxes, matrix), expected, atol=1e-9)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_quarter_turn_swaps_the_sides(degrees: int) -> None:
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
    wh = bx.size(aug.turn_boxes(bx.as_boxes([[10, 10, 30, 14]]), matrix))
    np.testing.assert_allclose(wh, [[4, 20]] if degrees in (90, 270) else [[20, 4]], atol=1e-9)


@given(st.floats(-180, 180), st.floats(1, 50), st.floats(1, 50))
def test_a_turned_box_keeps_its_centre_and_holds_no_more_than_the_turned_corners(
    degrees: float, w: float, h: float
) -> None:
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 7], [np.sin(turn), np.cos(turn), 3]])
    box = bx.as_boxes([[5, 6, 5 + w, 6 + h]])
    (found,) = aug.turn_boxes(box, matrix)
    corners = np.array([[5, 6], [5 + w, 6], [5, 6 + h], [5 + w, 6 + h]]) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose((found[:2] + found[2:]) / 2, corners.mean(axis=0), atol=1e-9)
    assert (found[:2] >= corners.min(axis=0) - 1e-9).all()
    assert (found[2:] <= corners.max(axis=0) + 1e-9).all()
    assert (found[2:] - found[:2] >= min(w, h) - 1e-9).all()


@pytest.mark.parametrize("seed", range(6))
def test_with_everything_off_a_sample_is_its_window_mirrored(seed: int) -> None:
    scene = made(STILL, seed)
    pixels, boxes = squares()
    view = pixels[32:96, 48:112]
    expected = boxes - [48, 32, 48, 32]
    left_right, top_bottom = scene.parameters["mirror"]
    if left_right:
        view, expected = view[:, ::-1], np.abs([64, 0, 64, 0] - expected)[:, [2, 1, 0, 3]]
    if top_bottom:
        view, expected = view[::-1], np.abs([0, 64, 0, 64] - expected)[:, [0, 3, 2, 1]]
    np.testing.assert_array_equal(scene.pixels, view)
    np.testing.assert_allclose(scene.boxes, expected, atol=1e-9)
    np.testing.assert_array_equal(scene.rows, [0, 1, 2])


@pytest.mark.parametrize("seed", range(12))
def test_the_squares_are_where_the_turned_boxes_say(seed: int) -> None:
    scene = made(Augment(rotate=15, crop=True, copy_paste=1, quality=False), seed)
    assert scene.pixels.shape == (64, 64, 3)
    for (x0, y0, x1, y1), seen in zip(scene.boxes, scene.visibility, strict=True):
        if seen >= 1:
            cx, cy = int((x0 + x1) / 2), int((y0 + y1) / 2)
            assert scene.pixels[cy - 1 : cy + 2, cx - 1 : cx + 2].mean() > 235


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_boxes_stay_inside_the_sample_and_the_lesser_seen_are_regions(seed: int) -> None:
    scene = made(Augment(rotate=45, crop=True, copy_paste=1, quality=False), seed, Window(80, 48, 144, 112))
    for found in (scene.boxes, scene.ignore):
        assert ((found >= 0) & (found <= 64)).all()
        assert (bx.area(found) > 0).all()
    assert (scene.visibility >= PLAN.min_visibility).all()
    assert len(scene.boxes) == len(scene.rows) == len(scene.visibility)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_pasted_object_lies_on_no_other_box_or_region(seed: int) -> None:
    scene = made(STILL.model_copy(update={"copy_paste": 1.0}), seed, Window(48, 32, 112, 90))
    pasted = scene.parameters.get("pasted", 0)
    assert pasted <= 3
    if pasted:
        new, old = scene.boxes[-pasted:], np.concatenate([scene.boxes[:-pasted], scene.ignore])
        assert not bx.intersection(new, old).any()
        assert np.triu(bx.intersection(new, new), 1).max() == 0
        for x0, y0, x1, y1 in new.astype(int):
            assert scene.pixels[y0:y1, x0:x1].mean() > 240


def test_objects_are_pasted_at_all() -> None:
    assert (
        sum("pasted" in made(STILL.model_copy(update={"copy_paste": 1.0}), seed).parameters for seed in range(10)) > 5
    )


def test_ignored_boxes_are_regions_and_no_donors() -> None:
    pixels, boxes = squares()
    config = STILL.model_copy(update={"copy_paste": 1.0})
    for seed in range(5):
        scene = aug.augment(pixels, boxes, np.ones(3, bool), Window(48, 32, 112, 96), PLAN, config, seed)
        assert (len(scene.boxes), len(scene.ignore)) == (0, 3)


def test_the_same_seed_gives_the_same_sample_and_another_seed_another() -> None:
    config = Augment(rotate=15, crop=True, copy_paste=1, quality=True)
    one, again, other = made(config, 5), made(config, 5), made(config, 6)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(one.boxes, again.boxes)
    assert one.parameters == again.parameters
    assert not np.array_equal(one.pixels, other.pixels)


def test_the_seed_of_the_configuration_counts_too() -> None:
    assert made(Augment(quality=False), 5).parameters != made(Augment(quality=False, seed=1), 5).parameters


def test_light_and_noise_keep_shape_and_the_source_unchanged() -> None:
    pixels, _ = squares()
    before = pixels.copy()
    changed = [aug.disturb(pixels, seed) for seed in range(4)]
    np.testing.assert_array_equal(pixels, before)
    assert all(found.shape == pixels.shape and found.dtype == np.uint8 for found in changed)
    assert any(not np.array_equal(found, pixels) for found in changed)


@pytest.mark.parametrize(
    ("sides", "config", "expected"),
    [
        ([], Augment(copies=3), 0),
        ([50.0], Augment(copies=1, oversample_small=2), 1),
        ([50.0, 31.9], Augment(copies=1, oversample_small=2), 2),
        ([32.0], Augment(copies=1, oversample_small=2), 1),
        ([10.0], Augment(copies=0), 0),
        ([10.0], Augment(copies=2, oversample_small=1), 2),
    ],
)
def test_tiles_with_small_objects_give_more_copies(sides: list[float], config: Augment, expected: int) -> None:
    assert aug.copies(np.array(sides), config) == expected


@given(st.floats(-180, 180))
def test_an_ignored_region_keeps_its_corners_when_turned(degrees: float) -> None:
    pixels, _ = squares()
    region, turn = bx.as_boxes([[60, 50, 90, 60]]), np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 80], [np.sin(turn), np.cos(turn), 80]])
    seen = aug.look(pixels, region, np.ones(1, bool), aug.View(matrix, (200, 200), {}), 0.4)
    corners = np.array([[60, 50], [90, 50], [60, 60], [90, 60]]) @ matrix[:, :2].T + matrix[:, 2]
    expected = bx.clip(bx.as_boxes([*corners.min(0), *corners.max(0)]), (0, 0, 200, 200))
    np.testing.assert_allclose(seen.ignore, expected[bx.area(expected) > 0], atol=1e-9)
