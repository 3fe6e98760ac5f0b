"""Rows of a box with keypoints, a confidence or a track id, as opposed to polygons."""

from __future__ import annotations

from collections import Counter
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


class FormCounts:
    """Rows of one length, counted some at a time: how many of them look like each form.

    The first four numbers of a pose row are a box that holds all keypoints. A small polygon can look so too; but its
    second vertex is near the first, where the width and height of a box can be any place.
    """

    def __init__(self, length: int) -> None:
        self._length = length  # numbers after the class
        self._rows = 0
        self._scored: Counter[int] = Counter()  # rows whose last so many numbers can be scores
        self._tracked = 0  # rows with a track id above 1
        self._held: Counter[Form] = Counter()  # rows whose box holds the keypoints
        self._apart: Counter[Form] = Counter()  # those of them whose w h is far from the centre
        self._sure: Counter[Form] = Counter()  # those, or with a keypoint far from the centre

    def add(self, rows: NDArray[np.float64]) -> None:
        """Count rows [N, length]."""
        self._rows += len(rows)
        for scores in range(len(_SCORES) + 1):
            places, last = np.split(rows, [self._length - scores], axis=1)
            self._scored[scores] += int(_are_scores(last).sum())
            if self._scored[scores] < self._rows:
                continue
            self._tracked += int((last[:, 1:] > 1).sum())
            for points, dimensions in _shapes(self._length - scores):
                form = Form(points, dimensions, scores)
                held, distance = _hold_keypoints(places, dimensions)
                apart = abs(places[:, 2:BOX] - places[:, :2]).max(axis=1) > _APART * distance
                self._held[form] += int(held.sum())
                self._apart[form] += int((held & apart).sum())
                self._sure[form] += int((held & (apart | (distance > _LARGE))).sum())

    def find_form(self) -> Form | None:
        """Return what the rows are; None if they are polygons."""
        for scores in range(len(_SCORES) + 1):
            if self._scored[scores] < self._rows:
                continue
            if scores == len(_SCORES) and self._length == BOX + scores and self._tracked:
                return Form(0, 2, scores)
            for points, dimensions in _shapes(self._length - scores):
                form = Form(points, dimensions, scores)
                sure = (self._sure if self._rows >= _ENOUGH else self._apart)[form]
                others = self._rows - self._held[form]
                if sure >= max(min(self._rows, _LEAST), _SHARE * self._rows, 2 * others):
                    return form
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


def _are_scores(last: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the last numbers of each row [N, 0 to 2] can be a confidence and a track id."""
    is_confidence = ((last[:, :1] >= 0) & (last[:, :1] <= 1)).all(axis=1)
    is_whole: NDArray[np.bool_] = (last[:, 1:] == np.floor(last[:, 1:])).all(axis=1)
    return is_confidence & is_whole


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
