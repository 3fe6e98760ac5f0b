"""What a sprite's boxes say is what is drawn."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor, pi

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl.demo import scene, sprites

GROUND = (255.0, 0.0, 255.0)  # no sprite has this colour
NOON = (0.0, 0.0)  # no shadow beside the sprite
STEP = 2 / sprites.SUPERSAMPLING  # what antialiasing may miss at a tip, pixels


def drawn_extent(sprite: sprites.Sprite, side: int) -> tuple[int, int, int, int]:
    """Return the pixels that a sprite without shadow changes on a flat ground: first column, row, last + 1."""
    canvas = np.full((side, side, 3), GROUND, np.float32)
    sprites.paint(canvas, replace(sprite, height=0), NOON)
    rows, columns = np.nonzero(np.abs(canvas - np.array(GROUND, np.float32)).max(axis=2) > 0.5)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def assert_same_extent(drawn: tuple[int, int, int, int], box: sprites.Box) -> None:
    for got, low in zip(drawn[:2], box[:2], strict=True):
        assert floor(low - STEP) <= got <= floor(low + STEP)
    for got, high in zip(drawn[2:], box[2:], strict=True):
        assert ceil(high - STEP) <= got <= ceil(high + STEP)


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(sprites.CATEGORIES),
    seed=st.integers(0, 1000),
    x=st.floats(40, 60),
    y=st.floats(40, 60),
    heading=st.floats(0, 2 * pi),
    scale=st.floats(0.85, 1.55),
)
def test_the_hull_is_where_pixels_change(
    name: str, seed: int, x: float, y: float, heading: float, scale: float
) -> None:
    thing = sprites.place(sprites.vehicle(np.random.default_rng(seed), name, scale), x, y, heading)
    assert_same_extent(drawn_extent(thing, 100), sprites.hull(thing))


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sprites.CATEGORIES), seed=st.integers(0, 1000), heading=st.floats(0, 2 * pi))
def test_at_a_border_the_box_is_the_hull_of_the_visible_part(name: str, seed: int, heading: float) -> None:
    thing = sprites.place(sprites.vehicle(np.random.default_rng(seed), name, 1.2), 1.0, 98.0, heading)
    box = sprites.visible_hull(thing, 100, 100)
    assert box is not None
    assert min(box) >= 0
    assert max(box) <= 100
    assert_same_extent(drawn_extent(thing, 100), box)


def test_nothing_is_visible_of_what_stands_outside() -> None:
    thing = sprites.place(sprites.vehicle(np.random.default_rng(0), "car", 1.0), 200.0, 50.0, 0.3)
    assert sprites.visible_hull(thing, 100, 100) is None


def test_a_shadow_falls_outside_the_box_and_away_from_the_sun() -> None:
    thing = sprites.place(sprites.vehicle(np.random.default_rng(0), "truck", 1.0), 50.0, 50.0, 0.0)
    canvas = np.full((100, 100, 3), 120, np.float32)
    sprites.paint(canvas, thing, (0.0, 1.0))
    _, y0, _, y1 = sprites.hull(thing)
    assert canvas[floor(y0) - 2, 50].tolist() == [120, 120, 120]
    assert canvas[ceil(y1) + 1, 50].max() < 100


def test_a_sprite_without_contrast_has_the_mean_colour_of_the_ground() -> None:
    canvas = np.full((60, 60, 3), 90, np.float32)
    sprites.paint(canvas, sprites.place(sprites.vehicle(np.random.default_rng(0), "car", 1.0), 30, 30, 0.7), NOON, 0.0)
    np.testing.assert_allclose(canvas, 90, atol=0.01)


@pytest.mark.parametrize("kind", sorted(scene.LOOK_ALIKES))
def test_look_alikes_are_as_large_as_vehicles(kind: str) -> None:
    x0, y0, x1, y1 = sprites.hull(sprites.look_alike(np.random.default_rng(1), kind, 1.0))
    assert 4 < ((x1 - x0) * (y1 - y0)) ** 0.5 < 40


def test_coverage_of_a_rectangle_is_its_area() -> None:
    covered = sprites.coverage(np.array([(2.5, 3.25), (7.5, 3.25), (7.5, 6.0), (2.5, 6.0)]), 20, 20)
    assert covered is not None
    assert covered[2].sum() == pytest.approx(5.0 * 2.75, rel=0.06)
