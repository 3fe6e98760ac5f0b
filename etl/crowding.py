"""How the boxes of one image stand in each other's way: near-equal boxes, and centres that share a feature cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, area

Indices = NDArray[np.int64]

DUPLICATE_IOU = 0.8
_SIDE = 1 << 20  # more cells than any image has along an axis
_ROWS = 1 << 20  # pairs looked at together


def duplicate_pairs(boxes: Boxes, groups: Indices) -> Indices:
    """Return the index pairs [K, 2] of boxes of one group [N] that overlap by more than DUPLICATE_IOU, in order."""
    order = np.lexsort((boxes[:, 0], groups))
    sorted_boxes, owner = boxes[order], groups[order]
    found = [_alike(sorted_boxes, pairs) for pairs in _candidates(sorted_boxes, owner)]
    pairs: Indices = np.sort(order[np.concatenate([np.empty((0, 2), dtype=np.int64), *found])], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _candidates(boxes: Boxes, owner: Indices) -> Iterator[Indices]:
    """Yield index pairs [P, 2] whose left sides are near enough; the boxes come by owner, then left side."""
    # An overlap above DUPLICATE_IOU leaves at most the rest of the width between the left sides.
    reach = boxes[:, 0] + (1 - DUPLICATE_IOU + 1e-9) * (boxes[:, 2] - boxes[:, 0])
    borders = [0, *(np.flatnonzero(owner[1:] != owner[:-1]) + 1).tolist(), len(owner)]
    for start, end in pairwise(borders):
        if end - start < 2:
            continue
        last = start + np.searchsorted(boxes[start:end, 0], reach[start:end], side="right")  # exclusive
        first = np.arange(start, end)
        many = np.maximum(last - first - 1, 0)
        for part in _parts(many):
            left = np.repeat(first[part], many[part])
            step = np.arange(len(left)) - np.repeat(np.cumsum(many[part]) - many[part], many[part])
            yield np.stack([left, left + 1 + step], axis=1)


def _parts(many: Indices) -> Iterator[slice]:
    """Yield runs of rows that together stand for about _ROWS pairs, one row at least."""
    begin = 0
    while begin < len(many):
        end = begin + max(1, int(np.searchsorted(np.cumsum(many[begin:]), _ROWS, side="right")))
        yield slice(begin, end)
        begin = end


def _alike(boxes: Boxes, pairs: Indices) -> Indices:
    a, b = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.maximum(side, 0.0).prod(axis=1)
    alike: Indices = pairs[shared > DUPLICATE_IOU * (area(a) + area(b) - shared)]
    return alike


def shared_cells(centres: NDArray[np.float64], owner: Indices, stride: float) -> tuple[int, int]:
    """Return how many pairs of centres [N, 2] of one owner lie in the same cell, and how many centres do."""
    cell = np.clip(np.floor(centres / stride), 0, _SIDE - 1).astype(np.int64)
    _, many = np.unique((owner * _SIDE + cell[:, 1]) * _SIDE + cell[:, 0], return_counts=True)
    return int((many * (many - 1) // 2).sum()), int(many[many > 1].sum())
