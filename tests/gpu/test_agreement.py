"""Detections agree if their categories are equal and their sides near, in any order."""

from __future__ import annotations

import numpy as np

from etl.boxes import as_boxes
from tests.gpu.agreement import compare
from train.detections import Detections


def detections(*rows: tuple[float, float, int]) -> Detections:
    """Boxes of 10 px at x, with score and category."""
    boxes = as_boxes([(x, 0.0, x + 10, 10.0) for x, _, _ in rows])
    scores, categories = np.array([row[1] for row in rows]), np.array([row[2] for row in rows], dtype=np.int64)
    return Detections(boxes, scores, categories, boxes)


def test_near_boxes_of_one_category_match_in_any_order() -> None:
    ours, theirs = detections((0, 0.9, 0), (50, 0.8, 1)), detections((50.5, 0.7, 1), (0, 0.9, 0))
    found = compare([ours], [theirs], pixels=1.0)
    assert (found.compared, found.matched, found.largest) == (2, 1.0, 0.5)
    assert round(found.score, 6) == 0.1


def test_a_shifted_box_and_one_of_another_category_do_not_match() -> None:
    ours, theirs = detections((0, 0.9, 0), (50, 0.8, 1)), detections((2, 0.9, 0), (50, 0.8, 0))
    assert compare([ours], [theirs], pixels=1.0).matched == 0.0


def test_a_side_without_detections_matches_nothing() -> None:
    one, none = detections((0, 0.9, 0)), detections()
    assert compare([one], [none], pixels=1.0).matched == 0.0
    assert compare([none], [one], pixels=1.0).compared == 0
