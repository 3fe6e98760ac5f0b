"""Suspects form a group only if they look alike and are of one kind."""

from __future__ import annotations

import numpy as np
import pytest

from train.label_errors import looks


@pytest.mark.parametrize(
    ("kinds", "leaders"),
    [
        ("aaaaa", [0, 0, 2, 2, 4]),
        ("aabab", [0, 0, 2, 3, 4]),  # the third looks like none of its kind
    ],
)
def test_each_looks_like_the_first_of_its_kind_within_reach(kinds: str, leaders: list[int]) -> None:
    described = np.array([[0.0], [1.0], [5.0], [4.2], [9.0]], dtype=np.float32)
    assert looks.group(described, kinds, reach=1.0) == leaders


def test_the_usual_distance_is_that_of_boxes_of_different_images() -> None:
    described = np.array([[0.0], [0.1], [3.0], [7.0]], dtype=np.float32)
    assert looks.usual_distance(described, np.array([0, 0, 1, 2])) == pytest.approx(2.95, abs=0.01)
    assert looks.usual_distance(described, np.zeros(4, dtype=np.int64)) == 0.0


def test_contrast_compares_the_likest_objects_with_the_likest_places_of_other_images() -> None:
    described = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [8.0]], dtype=np.float32)
    image = np.array([0, 1, 1, 2, 2, 3, 3])
    is_object = np.array([False, True, True, True, False, False, True])
    found = looks.contrast(described[:1], image[:1], described, image, is_object)
    assert found[0] == pytest.approx(np.log(((4 + 5) / 2) / ((1 + 2 + 3) / 3)))
    alone = looks.contrast(described[:1], image[:1], described, np.zeros(7, dtype=np.int64), is_object)
    assert alone.tolist() == [0.0]
    assert looks.contrast(described, image, described, image, np.ones(7, dtype=np.bool_)).tolist() == [0.0] * 7


def test_shares_are_of_the_boxes_of_other_images() -> None:
    described = np.array([[0.0], [0.0], [1.0], [2.0]], dtype=np.float32)
    image, code = np.array([0, 0, 1, 2]), np.array([2, 2, 0, 1])
    found = looks.shares(described[:1], image[:1], described, image, code, 3)
    assert found.tolist() == [[0.5, 0.5, 0.0]]
