"""Synthetic scenes repeat exactly, and keep their promises about sizes and distances."""

from __future__ import annotations

import numpy as np
import pytest

from etl import boxes
from etl.demo import scene, terrain


def draw(seed: int, objects: int = 30) -> scene.Scene:
    return scene.draw(np.random.default_rng([seed, 1]), terrain.site(np.random.default_rng([seed, 0])), objects)


@pytest.fixture(scope="module")
def scenes() -> list[scene.Scene]:
    return [draw(seed) for seed in range(5)]


def test_equal_seeds_give_equal_pixels_and_boxes(scenes: list[scene.Scene]) -> None:
    again = draw(0)
    np.testing.assert_array_equal(again.image, scenes[0].image)
    assert again.objects == scenes[0].objects


def test_another_seed_gives_another_scene(scenes: list[scene.Scene]) -> None:
    assert (scenes[0].image != scenes[1].image).mean() > 0.9


def test_objects_are_neither_too_small_nor_too_large_and_lie_in_the_image(scenes: list[scene.Scene]) -> None:
    found = boxes.as_boxes([o.box for s in scenes for o in s.objects])
    assert found.min() >= 0
    assert found.max() <= terrain.SIDE
    assert boxes.side_length(found).min() >= scene.MIN_LENGTH
    assert boxes.size(found).max() <= scene.MAX_SIDE


def test_no_two_objects_share_too_much(scenes: list[scene.Scene]) -> None:
    for drawn in scenes:
        found = boxes.as_boxes([o.box for o in drawn.objects])
        shared = boxes.iou(found, found) - np.eye(len(found))
        assert shared.max() <= scene.MAX_IOU + 1e-9


def test_a_box_in_the_image_is_part_of_the_whole_one(scenes: list[scene.Scene]) -> None:
    for drawn in (o for s in scenes for o in s.objects):
        clipped = boxes.clip(boxes.as_boxes([drawn.whole]), (0, 0, terrain.SIDE, terrain.SIDE))[0]
        assert (drawn.box[0] >= clipped[0] - 1e-3) and (drawn.box[2] <= clipped[2] + 1e-3)
        assert boxes.area(boxes.as_boxes([drawn.box]))[0] >= scene.MIN_VISIBLE * boxes.area(
            boxes.as_boxes([drawn.whole])
        )[0] * (1 - 1e-6)


def test_contrast_reaches_from_clear_to_hardly_visible(scenes: list[scene.Scene]) -> None:
    contrast = np.array([o.contrast for s in scenes for o in s.objects])
    assert contrast.min() < 0.4
    assert np.median(contrast) > 0.75


def test_a_scene_without_vehicles_has_no_objects() -> None:
    assert draw(3, objects=0).objects == ()


def test_a_larger_image_shows_more_objects_of_the_same_sizes(scenes: list[scene.Scene]) -> None:
    place = terrain.site(np.random.default_rng([1, 0]))
    drawn = scene.draw(np.random.default_rng([1, 1]), place, 30, side=1536)
    assert drawn.image.shape == (1536, 1536, 3)
    assert 60 < len(drawn.objects) <= 120
    found = boxes.as_boxes([o.box for o in drawn.objects])
    assert found.max() > 1200
    small = np.median(boxes.side_length(boxes.as_boxes([o.box for s in scenes for o in s.objects])))
    assert np.median(boxes.side_length(found)) == pytest.approx(small, rel=0.3)
    assert boxes.size(found).max() <= scene.MAX_SIDE
