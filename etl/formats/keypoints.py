"""Rows of a box with keypoints, a confidence or a track id, as opposed to polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.numbers import count_of

BOX = 4  # numbers before the keypoints: cx cy w h
DIMENSIONS = (2, 3)  # numbers of a keypoint: x y, or x y visibility
_VISIBLE = ("x", "y", "visibility")
_SCORES = ("confidence", "track id")  # what may follow
_HALF = 0.55  # sides of the box between its centre and a keypoint at most: 0.5 and some slack
_APART = 2.2  # w h, taken as a point, is so many times as far from the centre as any keypoint; a next vertex never is
_LARGE = 0.3  # or a keypoint is so far from the centre: few polygons of this size fit into such a box
_ENOUGH = 6  # rows for that to count
_SHARE, _LEAST = 0.1, 2  # of the rows of one length that are surely pose rows, for all of them to be ones


class Form(NamedTuple):
    """What a row of numbers is: a box, its keypoints, and a confidence or a confidence and a track id."""

    points: int
    dimensions: int  # numbers of each keypoint
    scores: int

    @property
    def expected(self) -> str:
        """What to write in place of such a row, or beside it."""
        parts = []
        if self.points:
            parts.append(
                f"a box or a polygon; for keypoints `kpt_shape: [{self.points}, {self.dimensions}]` in data.yaml"
            )
        if self.scores:
            last = ("number, a confidence", "two numbers, a confidence and a track id")[self.scores - 1]
            parts.append(f"no last {last}")
        return ", and ".join(parts)


def find_form(rows: NDArray[np.float64]) -> Form | None:
    """Return what rows of one length [N, numbers after the class] are; None if they are polygons.

    The first four numbers of a pose row are a box that holds all keypoints. A small polygon can look so too; but its
    second vertex is near the first, where the width and height of a box can be any place.
    """
    for scores in (0, 1, 2):
        places, last = rows[:, : rows.shape[1] - scores], rows[:, rows.shape[1] - scores :]
        if not _are_scores(last):
            continue
        if scores == len(_SCORES) and places.shape[1] == BOX and (last[:, 1] > 1).any():
            return Form(0, 2, scores)
        for points, dimensions in _shapes(places.shape[1]):
            held, distance = _hold_keypoints(places, dimensions)
            apart = abs(places[:, 2:BOX] - places[:, :2]).max(axis=1)
            large = (distance > _LARGE) & (len(rows) >= _ENOUGH)
            sure = held & ((apart > _APART * distance) | large)
            if sure.sum() >= max(min(len(rows), _LEAST), _SHARE * len(rows), 2 * (~held).sum()):
                return Form(points, dimensions, scores)
    return None


def guess_form(numbers: Sequence[float]) -> Form | None:
    """Return what numbers are that are too many by one for a polygon; None if they are no pose row either."""
    row = np.array([numbers], np.float64)
    for points, dimensions in _shapes(len(numbers)):
        seen = np.isin(row[:, BOX + 2 :: dimensions], (0, 1, 2)).all()
        if dimensions == len(_VISIBLE) and seen and _hold_keypoints(row, dimensions)[0][0]:
            return Form(points, dimensions, 0)
    return None


def describe(numbers: Sequence[float]) -> str:
    """Return the beginning of a row, given without its class, as text."""
    box = " ".join(f"{number:.6g}" for number in numbers[:BOX])
    return f"{count_of(1 + len(numbers), 'number')}, of which {box} look like a box"


def _are_scores(last: NDArray[np.float64]) -> bool:
    """Return whether the last numbers of all rows [N, 0 to 2] can be a confidence and a track id."""
    is_confidence = ((last[:, :1] >= 0) & (last[:, :1] <= 1)).all()
    return bool(is_confidence and (last[:, 1:] == np.floor(last[:, 1:])).all())


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
