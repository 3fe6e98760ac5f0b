from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.config import Augment
from etl.plan import TilePlan, Window
from etl.stages.augment.affine import AugmentedImage
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.mosaic import make_mosaic

PLAN = TilePlan(size=128, overlap=0.2, min_visibility=0.4, scales=(1.0,))
MIDDLE = Window(112, 64, 240, 192)
COLOURS = {"own": (200, 40, 40), "first": (40, 200, 40), "second": (40, 40, 200), "third": (200, 40, 200)}


def labelled_image(name: str, first: int, size_wh: tuple[int, int] = (300, 200)) -> LabelledImage:
    """A dark image with three squares of its own colour."""
    boxes = bx.as_boxes([[20, 20, 32, 32], [150, 100, 160, 110], [250, 150, 290, 190]])
    pixels = np.full((size_wh[1], size_wh[0], 3), 20, np.uint8)
    for x0, y0, x1, y1 in boxes.astype(int):
        pixels[y0:y1, x0:x1] = COLOURS[name]
    return LabelledImage(name, pixels, boxes, np.zeros(3, bool), first)


def made(seed: int, window: Window = MIDDLE, rotate: float = 0, donors: int = 3) -> AugmentedImage:
    names = ("first", "second", "third")[:donors]
    lent = [partial(labelled_image, name, 3 * place) for place, name in enumerate(names, start=1)]
    return make_mosaic(
        labelled_image("own", 0), lent, window, PLAN, Augment(rotate=rotate), np.random.default_rng(seed)
    )


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_every_box_shows_an_object_of_its_own_picture_at_native_scale(seed: int) -> None:
    scene = made(seed)
    assert scene.pixels.shape == (128, 128, 3)
    for (x0, y0, x1, y1), row, seen in zip(scene.boxes, scene.rows, scene.visibility, strict=True):
        name, source = list(COLOURS)[row // 3], labelled_image("own", 0).boxes[row % 3]
        assert scene.pixels[int((y0 + y1) / 2), int((x0 + x1) / 2)].tolist() == list(COLOURS[name])
        if seen >= 1:
            np.testing.assert_allclose([x1 - x0, y1 - y0], source[2:] - source[:2], atol=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_there_is_an_object_of_the_window_and_of_each_donor_and_every_view_shows_one(seed: int) -> None:
    scene = made(seed)
    assert 1 in [row for row in scene.rows if row < 3] or 1 in scene.ignored  # the one the window shows
    assert {row // 3 for row in [*scene.rows, *scene.ignored]} == {0, 1, 2, 3}
    views = scene.parameters["views"]
    assert next(view["image"] for view in views) == "own"
    assert sorted(view["image"] for view in views) == ["first", "own", "second", "third"]
    cx, cy = scene.parameters["centre"]
    assert 38 <= cx <= 90 and 38 <= cy <= 90
    assert sorted(tuple(view["corner"]) for view in views) == [(0, 0), (0, cy), (cx, 0), (cx, cy)]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_neither_label_nor_region_is_background(seed: int) -> None:
    scene = made(seed, rotate=15)
    left = scene.pixels.copy()
    for x0, y0, x1, y1 in np.concatenate([scene.boxes, scene.ignore]):
        left[max(int(y0) - 1, 0) : int(np.ceil(y1)) + 1, max(int(x0) - 1, 0) : int(np.ceil(x1)) + 1] = 20
    strong = left.max(axis=2).astype(int) - left.min(axis=2) > 60  # a coloured square; grey is outside the image
    # the corners of a turned square reach beyond the box of the ellipse in it
    assert strong.mean() < 0.01


@pytest.mark.parametrize(
    ("donors", "views"), [(1, ["first", "first", "own", "own"]), (2, ["first", "own", "own", "second"])]
)
def test_with_few_donors_images_have_several_views(donors: int, views: list[str]) -> None:
    assert sorted(view["image"] for view in made(3, donors=donors).parameters["views"]) == views


def test_alone_an_image_makes_a_mosaic_of_itself() -> None:
    scene = made(3, donors=0)
    assert {view["image"] for view in scene.parameters["views"]} == {"own"}
    assert (scene.rows < 3).all()


def test_a_window_of_any_shape_is_filled() -> None:
    for seed in range(5):
        assert made(seed, Window(112, 64, 112 + 64, 64 + 100)).pixels.shape == (100, 64, 3)
