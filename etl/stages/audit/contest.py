"""The part of each box's area, and so of its candidate cells, that its neighbours want too, and the part they get.

A cell learns the box that it is predicted to overlap most. Between boxes of equal size it is as often the one as the
other; in a box around many small ones the small ones keep their cells. A cell is therefore taken to go to each of the
boxes that want it in inverse proportion to their areas.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, area
from etl.stages.audit.crowding import Floats, Indices, overlapping_pairs, shared_area

CONTESTED = 0.5  # share of its area that a contested box has in common with others
_POINTS = 16  # of a box at which its neighbours are weighed
_ROWS_OF_POINTS = [int(f"{point:04b}"[::-1], 2) for point in range(_POINTS)]  # no two in one row or column
_PLACES = (np.stack([np.arange(_POINTS), _ROWS_OF_POINTS], axis=1) + 0.5) / _POINTS  # shares of width and height
_ROWS = 1 << 20  # pairs compared at once
_LOW, _HIGH = slice(0, 2), slice(2, 4)  # of a box: its corners
_EXACT = 1e-6  # of a share that is rounded


class Contest(NamedTuple):
    """What neighbours want and get of boxes."""

    taken: Floats  # [N] share of the area that neighbours get
    contested: NDArray[np.bool_]  # [N] whether neighbours want CONTESTED of the area or more


def contest(boxes: Boxes, owner: Indices) -> Contest:
    """Return what the boxes [N, 4] of one owner [N] want and get of each other."""
    own, number = area(boxes), len(boxes)
    wanted, largest, taken = np.zeros((3, number))
    weights, alone = np.zeros((2, number, _POINTS))
    for found in overlapping_pairs(boxes, owner):
        for pairs in (found, found[:, ::-1]):
            first, second = pairs.T
            shared, weight = shared_area(boxes, pairs) / own[first], own[first] / own[second]
            wanted += np.bincount(first, shared, minlength=number)
            np.maximum.at(largest, first, shared)
            taken += np.bincount(first, shared * weight / (1 + weight), minlength=number)
            within = _points_within(boxes, pairs)
            for point in range(_POINTS):
                at_point = weight * within[:, point]
                weights[:, point] += np.bincount(first, at_point, minlength=number)
                alone[:, point] += np.bincount(first, at_point / (1 + weight), minlength=number)
    least = CONTESTED - _EXACT
    contested = largest >= least
    unclear = ~contested & (wanted >= least)  # several neighbours may want the same part
    if unclear.any():
        found = np.concatenate([pairs[unclear[pairs].any(axis=1)] for pairs in overlapping_pairs(boxes, owner)])
        both = np.concatenate([found, found[:, ::-1]])
        rows, shares = _covered_share(boxes, both[unclear[both[:, 0]]])
        contested[rows] = shares >= least
    return Contest(_share_taken(taken, weights, alone), contested)


def _points_within(boxes: Boxes, pairs: Indices) -> NDArray[np.bool_]:
    """Return which of _POINTS evenly spread points of each pair's [P, 2] first box lie in the second, [P, _POINTS]."""
    first, second = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    places = first[:, None, :2] + (first[:, None, 2:] - first[:, None, :2]) * _PLACES  # [P, _POINTS, 2]
    return np.asarray(((places > second[:, None, :2]) & (places < second[:, None, 2:])).all(axis=2))


def _share_taken(taken: Floats, weights: Floats, alone: Floats) -> Floats:
    """Return the share [N] of each box's area that its neighbours get.

    `taken` [N] is what each would get if it were the only one, as shares of the own area, added up. At each point
    `weights` [N, _POINTS] adds up what the neighbours weigh against the box, and `alone` what each would get there.
    Without a point of several neighbours the result is exact.
    """
    mean = alone.mean(axis=1)
    of_each = np.divide((weights / (1 + weights)).mean(axis=1), mean, out=np.ones(len(mean)), where=mean > 0)
    return np.asarray(np.minimum(taken * of_each, 1.0))


def _covered_share(boxes: Boxes, pairs: Indices) -> tuple[Indices, Floats]:
    """Return the first boxes of pairs [P, 2], each once, and the share of each that its second boxes cover together.

    Between each two neighbouring edges along x the covered lengths along y are added up, from the top down.
    """
    order = np.lexsort((boxes[pairs[:, 1], 1], pairs[:, 0]))
    firsts, begins, numbers = np.unique(pairs[order, 0], return_index=True, return_counts=True)
    shares = np.zeros(len(firsts))
    for number in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == number)
        at_once = max(1, _ROWS // number)
        for part in (rows[first : first + at_once] for first in range(0, len(rows), at_once)):
            own = boxes[firsts[part]]
            others = boxes[pairs[order[begins[part, None] + np.arange(number)], 1]]  # [K, number, 4], by upper edge
            low, high = (np.clip(others[..., corner], own[:, None, :2], own[:, None, 2:]) for corner in (_LOW, _HIGH))
            edges = np.sort(np.concatenate([low[..., 0], high[..., 0]], axis=1), axis=1)
            covered = np.zeros((len(part), 2 * number - 1))
            end = np.full_like(covered, -np.inf)
            for other in range(number):
                across = (low[:, other, :1] <= edges[:, :-1]) & (high[:, other, :1] >= edges[:, 1:])
                upper, lower = low[:, other, 1:], high[:, other, 1:]
                covered += np.where(across, np.maximum(lower - np.maximum(upper, end), 0), 0)
                end = np.where(across, np.maximum(end, lower), end)
            shares[part] = (covered * np.diff(edges, axis=1)).sum(axis=1) / area(own)
    return firsts, shares
