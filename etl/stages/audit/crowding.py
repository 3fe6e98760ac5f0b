"""Boxes of one image that overlap, share cells or suppress each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, area

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

DUPLICATE_IOU = 0.8
_SIDE = 1 << 20  # more cells than any image has along an axis
_ROWS = 1 << 20  # pairs compared at once
_FEW = 64  # boxes of an image whose distances are all computed
_FAR = 1e9  # px between images


def overlapping_pairs(boxes: Boxes, owner: Indices) -> Iterator[Indices]:
    """Yield the index pairs [P, 2] of the boxes [N, 4] of one owner [N] that overlap, each once, lower index first.

    A sweep along x: only boxes that overlap there are compared.
    """
    order = np.lexsort((boxes[:, 0], owner))
    swept, owners = boxes[order], owner[order]
    borders = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1).tolist(), len(owners)]
    last = np.empty(len(owners), dtype=np.int64)
    for start, end in pairwise(borders):
        last[start:end] = start + np.searchsorted(swept[start:end, 0], swept[start:end, 2], side="left")
    first = np.arange(len(owners))
    partners = np.maximum(last - first - 1, 0)
    for run in runs(partners):
        row, nth = ragged(partners[run])
        left = first[run][row]
        right = left + 1 + nth
        meet = (swept[left, 1] < swept[right, 3]) & (swept[right, 1] < swept[left, 3])
        yield np.sort(order[np.stack([left[meet], right[meet]], axis=1)], axis=1)


def shared_area(boxes: Boxes, pairs: Indices) -> Floats:
    """Return the area [P] that the boxes of each pair [P, 2] share."""
    a, b = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    side = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    return np.asarray(np.maximum(side, 0.0).prod(axis=1))


def overlaps(boxes: Boxes, pairs: Indices) -> tuple[Floats, Floats]:
    """Return IoU [P] and intersection over the smaller box [P] of the boxes of each pair [P, 2]."""
    shared, own = shared_area(boxes, pairs), area(boxes)
    a, b = own[pairs[:, 0]], own[pairs[:, 1]]
    return shared / np.maximum(a + b - shared, 1e-12), shared / np.maximum(np.minimum(a, b), 1e-12)


def count_suppressed(pairs: Indices, iou: Floats, thresholds: Sequence[float]) -> list[int]:
    """Return the number of boxes that greedy NMS removes at each IoU threshold if all scores are equal.

    The earlier box of a pair stays.
    """
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    counts = []
    for threshold in thresholds:
        near = order[iou[order] > threshold]
        removed: set[int] = set()
        for keeper, other in pairs[near].tolist():
            if keeper not in removed:
                removed.add(other)
        counts.append(len(removed))
    return counts


def nearest_distances(centres: Floats, owner: Indices) -> Floats:
    """Return the distance [N] of each centre [N, 2] to the next one of its owner [N]; infinite where it is alone."""
    order = np.argsort(owner, kind="stable")
    _, firsts, counts = np.unique(owner[order], return_index=True, return_counts=True)
    if counts.max(initial=0) > _FEW:
        return _nearest_in_tree(centres, owner)
    distances = np.full(len(centres), np.inf)
    for count in np.unique(counts[counts > 1]).tolist():
        starts = firsts[counts == count]
        at_once = _ROWS // count**2
        for first in range(0, len(starts), at_once):
            rows = order[starts[first : first + at_once, None] + np.arange(count)]  # [K, count]
            x, y = centres[rows].transpose(2, 0, 1)
            squared = (x[:, :, None] - x[:, None]) ** 2 + (y[:, :, None] - y[:, None]) ** 2
            squared[:, range(count), range(count)] = np.inf
            distances[rows] = np.sqrt(squared.min(axis=2))
    return distances


def _nearest_in_tree(centres: Floats, owner: Indices) -> Floats:
    from scipy.spatial import cKDTree  # a third of a second that only images with many boxes are worth

    places = np.column_stack([centres, owner * _FAR])
    distances = cKDTree(places, compact_nodes=False, balanced_tree=False).query(places, k=2)[0][:, 1]
    return np.where(distances < _FAR / 2, distances, np.inf)


def runs(numbers: Indices) -> Iterator[slice]:
    """Yield runs of rows that together stand for about _ROWS things, one row at least; `numbers` [N] has each row's."""
    begin = 0
    while begin < len(numbers):
        end = begin + max(1, int(np.searchsorted(np.cumsum(numbers[begin:]), _ROWS, side="right")))
        yield slice(begin, end)
        begin = end


def ragged(numbers: Indices) -> tuple[Indices, Indices]:
    """Return the row, and the place within it, of each thing in rows of such lengths [N]."""
    row = np.repeat(np.arange(len(numbers)), numbers)
    return row, np.arange(len(row)) - (np.cumsum(numbers) - numbers)[row]


def shared_cells(centres: NDArray[np.float64], owner: Indices, stride: float) -> tuple[int, int]:
    """Return the pairs of centres [N, 2] of one owner [N] in the same cell, and the centres in such pairs."""
    together = boxes_in_cell(centres, owner, stride)
    return int((together - 1).sum()) // 2, int((together > 1).sum())


def boxes_in_cell(centres: NDArray[np.float64], owner: Indices, stride: float) -> Indices:
    """Return, of each centre [N, 2], the number [N] of centres of its owner [N] in its cell, itself included."""
    cell = np.clip(np.floor(centres / stride), 0, _SIDE - 1).astype(np.int64)
    keys = (owner * _SIDE + cell[:, 1]) * _SIDE + cell[:, 0]
    _, places, filled = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(filled[places], dtype=np.int64)
