from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.stages.augment.affine import GREY, AugmentedImage
from etl.stages.augment.copy_paste import MAX_PASTED, count_pastes, paste_small
from etl.stages.augment.labelled_image import LabelledImage


def labelled_image(name: str = "donor", first: int = 5, ground: int = 90) -> LabelledImage:
    boxes = bx.as_boxes([[20, 20, 26, 26], [60, 20, 72, 32], [100, 40, 124, 64], [20, 80, 80, 140]])
    pixels = np.random.default_rng(0).integers(ground - 5, ground + 5, (160, 160, 3)).astype(np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        pixels[y0:y1, x0:x1] = (250, 50 * number, 0)
    return LabelledImage(name, pixels, boxes, np.zeros(4, bool), first)


def scene(boxes: list, ignore: list = (), ground: int = 90) -> AugmentedImage:
    pixels = np.random.default_rng(1).integers(ground - 5, ground + 5, (128, 128, 3)).astype(np.uint8)
    count = len(boxes)
    return AugmentedImage(
        pixels, bx.as_boxes(boxes), np.arange(count), np.ones(count), bx.as_boxes(ignore), np.arange(len(ignore)), {}
    )


@pytest.mark.parametrize(
    ("sides", "boost", "expected"),
    [
        ([5, 5, 12, 20, 50, 200], 2, [2, 1, 1]),
        ([5, 5], 3, [4, 0, 0]),
        ([12] * 30, 2, [0, MAX_PASTED, 0]),
        ([5] * 10 + [20] * 10, 2, [4, 0, 4]),
        ([12, 12, 20], 1, [0, 1, 0]),  # no boost: one all the same
        ([50, 100], 2, [0, 0, 1]),
        ([], 2, [0, 0, 1]),
    ],
)
def test_as_many_are_wanted_as_bring_each_small_size_to_the_boosted_share(
    sides: list, boost: float, expected: list
) -> None:
    assert count_pastes(np.array(sides, dtype=float), boost).tolist() == expected


@given(st.lists(st.floats(1, 100), max_size=8), st.floats(1, 3))
def test_the_wanted_bring_the_histogram_to_its_target_where_there_is_room(sides: list[float], boost: float) -> None:
    counts = np.bincount(bx.bucket(sides), minlength=5)[:3]
    more = count_pastes(np.array(sides), boost)
    assert 1 <= more.sum() <= MAX_PASTED
    if 1 < more.sum() < MAX_PASTED:
        np.testing.assert_allclose(counts + more, counts * boost, atol=0.5 + 1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_pasted_objects_lie_on_free_ground_and_are_about_as_large_as_they_were(seed: int) -> None:
    before = scene([[10, 10, 22, 22], [64, 64, 76, 76], [100, 10, 106, 16]], [[0, 90, 60, 128]])
    found = paste_small(before, [labelled_image()], 2.0, np.random.default_rng(seed))
    pasted = found.boxes[3:]
    assert len(pasted) == len(found.parameters["pasted"]) == len(found.rows) - 3
    assert not bx.intersection(pasted, np.concatenate([before.boxes, before.ignore])).any()
    assert np.triu(bx.intersection(pasted, pasted), 1).sum() == 0
    for x0, y0, x1, y1 in [*before.boxes.astype(int), *before.ignore.astype(int)]:
        np.testing.assert_array_equal(found.pixels[y0:y1, x0:x1], before.pixels[y0:y1, x0:x1])
    for box, row, note in zip(pasted, found.rows[3:], found.parameters["pasted"], strict=True):
        number = row - 5
        assert number < 3 and note["image"] == "donor"
        ratio = bx.size(box[None]) / bx.size(labelled_image().boxes[number][None])
        assert (ratio >= 0.7).all() and (ratio <= 1.4).all()  # 0.8 to 1.25, in whole pixels
        x, y = ((box[:2] + box[2:]) / 2).astype(int)
        np.testing.assert_allclose(found.pixels[y, x], (250, 50 * number, 0), atol=1)


def test_the_surroundings_of_a_pasted_object_fade_into_the_ground() -> None:
    before = scene([[10, 10, 22, 22]], ground=100)
    found = paste_small(before, [labelled_image(ground=80)], 2.0, np.random.default_rng(0))
    x0, y0, x1, _ = found.boxes[1].astype(int)
    above = found.pixels[y0 - 3 : y0, x0:x1].mean(axis=(1, 2))
    assert abs(above[0] - 100) < 4 and 78 < above[-1] < 98


def test_unlike_ground_and_grey_padding_take_no_object() -> None:
    far = scene([[10, 10, 22, 22]], ground=200)
    padded = replace(far, pixels=np.full((128, 128, 3), GREY, np.uint8))
    for ground in (far, padded):
        assert paste_small(ground, [labelled_image()], 2.0, np.random.default_rng(0)).parameters["pasted"] == []


def test_only_small_whole_lone_labels_are_pasted() -> None:
    boxes = [
        [20, 20, 26, 26],
        [1, 60, 9, 70],
        [60, 60, 70, 70],
        [72, 60, 80, 70],
        [100, 20, 101, 30],
        [90, 90, 150, 150],
    ]
    ignore = np.array([False] * 6)
    pixels = np.zeros((160, 160, 3), np.uint8)
    # whole and alone; at the border; two within each other's margin; too thin; too large
    assert LabelledImage("p", pixels, bx.as_boxes(boxes), ignore).pasteable.tolist() == [0]
    ignore[0] = True
    assert LabelledImage("p", pixels, bx.as_boxes(boxes), ignore).pasteable.size == 0


def test_many_pastes_raise_the_share_of_small_objects_as_far_as_asked() -> None:
    boxes = [[40, 40, 52, 52], [70, 70, 82, 82], [2, 80, 42, 120]]
    found = [paste_small(scene(boxes), [labelled_image()], 2.0, np.random.default_rng(seed)) for seed in range(40)]
    small = np.mean([(bx.side_length(one.boxes) < 32).sum() for one in found])
    assert small == pytest.approx(4, abs=0.3)  # two were there
