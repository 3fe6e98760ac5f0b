"""Rows of boxes with keypoints are distinguished from polygons by all rows of one length together."""

from __future__ import annotations

import numpy as np
import pytest

from etl.formats import keypoints

SIZES = [(0.01, 0.05), (0.05, 0.2), (0.2, 0.6), (0.6, 0.95)]


def random_boxes(rng: np.random.Generator, number: int, sides: tuple[float, float]) -> np.ndarray:
    """Boxes cx cy w h [number, 4] that lie in their image."""
    size = np.exp(rng.uniform(*np.log(sides), (number, 2)))
    return np.hstack([rng.uniform(size / 2, 1 - size / 2), size])


def pose_rows(rng: np.random.Generator, number: int, sides: tuple[float, float], points: int) -> np.ndarray:
    """Boxes, each with keypoints anywhere in it."""
    boxes = random_boxes(rng, number, sides)
    places = boxes[:, None, :2] + boxes[:, None, 2:] * rng.uniform(-0.5, 0.5, (number, points, 2))
    return np.hstack([boxes, places.reshape(number, -1)])


def polygons(rng: np.random.Generator, number: int, sides: tuple[float, float], points: int) -> np.ndarray:
    """Polygons [number, 2 * points] with vertices around their centre, the first one anywhere."""
    boxes = random_boxes(rng, number, sides)
    angle = np.sort(rng.uniform(0, 2 * np.pi, (number, points)), axis=1) + rng.uniform(0, 7, (number, 1))
    radius = rng.uniform(0.4, 1, (number, points, 1)) / 2
    around = np.stack([np.cos(angle), np.sin(angle)], axis=2) * radius * boxes[:, None, 2:]
    return (boxes[:, None, :2] + around).reshape(number, -1)


def find_form(rows: np.ndarray) -> keypoints.Form | None:
    """The form of rows, which is that of the same rows counted some at a time."""
    whole, pieces = (keypoints.FormCounts(rows.shape[1]) for _ in range(2))
    whole.add(rows)
    for start in range(0, len(rows), 1 + len(rows) // 3):
        pieces.add(rows[start : start + 1 + len(rows) // 3])
    assert pieces.find_form() == whole.find_form()
    return whole.find_form()


@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("points", [1, 2, 5, 17])
def test_rows_of_boxes_with_keypoints_are_found(sides: tuple[float, float], points: int) -> None:
    rng = np.random.default_rng(points)
    rows = pose_rows(rng, 200, sides, points)
    assert find_form(rows) == (points, 2, 0)
    if points % 2 == 0:  # with an odd number of points the row is too long by one for a polygon
        seen = np.insert(rows, range(6, rows.shape[1] + 1, 2), 2, axis=1)  # visibility 2 after each x y
        assert find_form(seen) == (points, 3, 0)
        assert keypoints.guess_form(seen[0].tolist()) == (points, 3, 0)


@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("points", [3, 4, 5, 8, 20, 40])
def test_polygons_of_any_size_stay_polygons(sides: tuple[float, float], points: int) -> None:
    rng = np.random.default_rng(points)
    assert find_form(polygons(rng, 200, sides, points)) is None
    few = [find_form(polygons(rng, 1, sides, points)) for _ in range(200)]
    assert sum(shape is not None for shape in few) <= (16 if points == 3 else 4)


def test_keypoints_that_are_not_labelled_lie_at_zero() -> None:
    rows = np.array([[0.5, 0.5, 0.1, 0.2, 0.52, 0.55, 2, 0, 0, 0], [0.8, 0.3, 0.1, 0.1, 0, 0, 0, 0.79, 0.28, 1]])
    assert find_form(rows) == (2, 3, 0)
    assert find_form(rows[:, [0, 1, 2, 3, 6, 6]]) is None  # not one keypoint labelled


def test_a_few_keypoints_outside_of_their_box_do_not_hide_the_others() -> None:
    rows = pose_rows(np.random.default_rng(0), 100, (0.02, 0.2), 3)
    rows[:5, 4] += 0.5
    assert find_form(rows) == (3, 2, 0)


@pytest.mark.parametrize("sides", SIZES[:3])
@pytest.mark.parametrize("points", [0, 1, 5, 17])
def test_a_confidence_and_a_track_id_may_follow(sides: tuple[float, float], points: int) -> None:
    rng = np.random.default_rng(points)
    rows = pose_rows(rng, 100, sides, points)
    confidence, track = rng.uniform(0.2, 1, (100, 1)), rng.integers(1, 9, (100, 1))
    if points:
        assert find_form(np.hstack([rows, confidence])) in ((points, 2, 1), (points, 3, 0))
    form = find_form(np.hstack([rows, confidence, track]))
    assert form == (points, 2, 2)
    assert ("kpt_shape" in form.expected) == (points > 0)
    assert "a confidence and a track id" in form.expected
