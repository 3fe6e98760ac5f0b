"""Keypoints in rows of numbers: tell a box with keypoints from a polygon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BOX = 4  # numbers before the keypoints: cx cy w h
DIMENSIONS = (2, 3)  # numbers of a keypoint: x y, or x y visibility
_HALF = 0.55  # sides of the box between its centre and a keypoint at most: 0.5 and some slack
_APART = 2.2  # w h, taken as a point, is so many times as far from the centre as any keypoint; a next vertex never is
_LARGE = 0.3  # or a keypoint is so far from the centre: few polygons of this size fit into such a box
_ENOUGH = 20  # rows for that to count
_SHARE = 0.1  # of the rows of one length that are surely pose rows, for all of them to be ones


def find_shape(rows: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return the kpt_shape of rows of one length [N, numbers after the class]; None if they are polygons.

    The first four numbers of a pose row are a box that holds all keypoints. A small polygon can look so too; but its
    second vertex is near the first, where the width and height of a box can be any place.
    """
    for shape in _shapes(rows.shape[1]):
        held, distance = _hold_keypoints(rows, shape[1])
        apart = abs(rows[:, 2:BOX] - rows[:, :2]).max(axis=1)
        large = (distance > _LARGE) & (len(rows) >= _ENOUGH)
        sure = held & ((apart > _APART * distance) | large)
        if sure.sum() >= max(_SHARE * len(rows), 2 * (~held).sum()):
            return shape
    return None


def guess_shape(numbers: Sequence[float]) -> tuple[int, int] | None:
    """Return the kpt_shape of numbers that are too many by one for a polygon; None if they are no pose row either."""
    row = np.array([numbers], np.float64)
    return next((shape for shape in _shapes(len(numbers)) if _hold_keypoints(row, shape[1])[0][0]), None)


def expected(kpt_shape: tuple[int, int]) -> str:
    """Return what to expect in place of a pose row of this shape."""
    points, dimensions = kpt_shape
    return f"a box or a polygon; for keypoints `kpt_shape: [{points}, {dimensions}]` in data.yaml"


def describe(numbers: Sequence[float]) -> str:
    """Return the beginning of a pose row, given without its class, as text."""
    box = " ".join(f"{number:.6g}" for number in numbers[:BOX])
    return f"{1 + len(numbers)} numbers, of which {box} are a box that holds the others"


def _shapes(length: int) -> list[tuple[int, int]]:
    """Return each kpt_shape that a row of so many numbers after the class can have."""
    return [((length - BOX) // d, d) for d in DIMENSIONS if length > BOX and (length - BOX) % d == 0]


def _hold_keypoints(rows: NDArray[np.float64], dimensions: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether the box of each row [N, 4 + keypoints] holds its keypoints, and the farthest one's distance.

    A keypoint at 0 0 is one that was not labelled. The distance is along the axis where it is larger.
    """
    centre, size = rows[:, None, :2], rows[:, None, 2:BOX]
    points = rows[:, BOX:].reshape(len(rows), -1, dimensions)[:, :, :2]
    labelled = (points != 0).any(axis=2)
    distance = np.where(labelled[:, :, None], abs(points - centre), 0.0)
    held = (distance <= _HALF * size).all(axis=(1, 2)) & (size > 0).all(axis=(1, 2)) & labelled.any(axis=1)
    return held, distance.max(axis=(1, 2))
