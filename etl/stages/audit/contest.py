"""The positive cells that `tal` would give each box alone, and those that it keeps beside its neighbours.

Each cell is taken to predict the box whose centre is nearest, of the boxes that it is a candidate of: it is that box's
own. A box picks the TOPK cells that overlap it most, its own ones first, then those of neighbours. A cell that several
boxes pick goes to the box that it predicts. A box with more than TOPK cells of its own leaves the others to neighbours;
of the cells that both want these pick the same ones first, because scores rank cells that predict one box alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from etl.assigner import TOPK, tiny_side
from etl.boxes import Boxes, area, size
from etl.stages.audit.candidates import Candidates, Sample
from etl.stages.audit.crowding import Floats, Indices

_EPSILON = 1e-9


class Contest(NamedTuple):
    """The positive cells of boxes."""

    alone: Floats  # [N] without neighbours
    kept: Floats  # [N] beside them


def enlarge(boxes: Boxes, least: float) -> Boxes:
    """Return the boxes with sides below the least enlarged to it about their centres."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(size(boxes), least) / 2
    return np.hstack([middle - half, middle + half])


def contest(boxes: Boxes, pairs: Indices, strides: Sequence[int]) -> Contest:
    """Return what `tal` gives boxes [N, 4] in network pixels; those of pairs [P, 2] may have candidates in common."""
    reach = enlarge(boxes, tiny_side(strides))
    levels = [Candidates.of(reach, stride) for stride in strides]
    number = np.sum([level.number.prod(axis=1) for level in levels], axis=0)
    shared = np.sum([level.shared(pairs) for level in levels], axis=0)
    both = np.concatenate([pairs, pairs[:, ::-1]])[np.tile(shared > 0, 2)]
    wanted = np.bincount(both[:, 0], np.tile(shared[shared > 0], 2), minlength=len(boxes))
    alone = np.minimum(number, TOPK).astype(np.float64)
    own = np.maximum(number - wanted / 2, alone)  # where there are surely enough
    unsure = np.flatnonzero(np.maximum(number - wanted, _surely_nearest(boxes, reach, both, strides)) < alone)
    cells = _divide(boxes, unsure, both, levels, strides)
    own[unsure] = np.bincount(cells.box, cells.weight * (cells.owner == unsure[cells.box]), minlength=len(unsure))
    kept = alone.copy()
    kept[unsure] = own[unsure] + _left_by_others(boxes, unsure, cells, own)
    return Contest(alone, np.minimum(kept, alone))


def _surely_nearest(boxes: Boxes, reach: Boxes, both: Indices, strides: Sequence[int]) -> Floats:
    """Return how many candidates [N] each box has at least in the square to which no neighbour's centre is nearer."""
    apart = np.full(len(boxes), np.inf)
    np.minimum.at(apart, both[:, 0], _distance(*_middle(boxes)[both.T]))
    side = np.minimum(size(reach).min(axis=1), np.sqrt(apart / 2))
    return np.asarray(sum(np.maximum(np.ceil(side / stride) - 1, 0) ** 2 for stride in strides))


class _Cells(NamedTuple):
    """Candidates of some boxes, and whose own they are."""

    box: Indices  # [C] place among these boxes
    owner: Indices  # [C] place among all boxes
    weight: Floats  # [C] candidates that each stands for


def _divide(boxes: Boxes, rows: Indices, both: Indices, levels: Sequence[Candidates], strides: Sequence[int]) -> _Cells:
    """Return the cells of the boxes in these rows; of equally near boxes the first owns a cell."""
    middle, place = _middle(boxes), np.full(len(boxes), -1)
    place[rows] = np.arange(len(rows))
    pairs = both[place[both[:, 0]] >= 0]
    box, partner = pairs[np.argsort(-pairs[:, 1], kind="stable")].T  # the first is written last
    of_levels = []
    for candidates, stride in zip(levels, strides, strict=True):
        sample = Sample.of(candidates, rows)
        of_box, centre = sample.centres(stride)
        owner = rows[of_box]
        nearest = _distance(centre, middle[owner])
        for cell, other in sample.of_both(place[box], candidates, partner):
            apart = _distance(centre[cell], middle[other])
            nearer = (apart < nearest[cell]) | ((apart == nearest[cell]) & (other < owner[cell]))
            cell, other, apart = cell[nearer], other[nearer], apart[nearer]
            np.minimum.at(nearest, cell, apart)
            at_last = apart == nearest[cell]
            owner[cell[at_last]] = other[at_last]
        of_levels.append(_Cells(of_box, owner, sample.weight[of_box]))
    return _Cells(*map(np.concatenate, zip(*of_levels, strict=True)))


def _left_by_others(boxes: Boxes, rows: Indices, cells: _Cells, own: Floats) -> Floats:
    """Return how many cells [R] that are not their own the boxes in these rows get; `own` [N] is what each box owns."""
    wanted = (cells.owner != rows[cells.box]) & (own[rows] < TOPK)[cells.box]
    group, of_cell = np.unique(cells.box[wanted] * len(boxes) + cells.owner[wanted], return_inverse=True)
    box, owner = np.divmod(group, max(len(boxes), 1))
    common = np.bincount(of_cell, cells.weight[wanted], minlength=len(group))
    overlap = _ciou(boxes[rows[box]], boxes[owner])
    order = np.lexsort((-overlap, box))
    box, owner, common, overlap = box[order], owner[order], common[order], overlap[order]
    ranked = np.cumsum(common) - common
    ranked -= ranked[np.searchsorted(box, box)]
    picked = np.clip(TOPK - own[rows[box]] - ranked, 0, common) * (overlap > 0)
    left = np.maximum(picked - TOPK * common / np.maximum(own[owner], _EPSILON), 0)
    return np.bincount(box, left, minlength=len(rows)).astype(np.float64)


def _ciou(a: Boxes, b: Boxes) -> Floats:
    """Return the complete IoU [P] of boxes [P, 4] (Zheng et al. 1911.08287)."""
    shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0).prod(axis=1)
    overlap = shared / np.maximum(area(a) + area(b) - shared, _EPSILON)
    hull = _distance(np.maximum(a[:, 2:], b[:, 2:]), np.minimum(a[:, :2], b[:, :2]))
    shape = 4 / np.pi**2 * (np.arctan2(*size(a).T) - np.arctan2(*size(b).T)) ** 2
    weight = shape / np.maximum(shape + 1 - overlap, _EPSILON)
    return np.asarray(overlap - _distance(_middle(a), _middle(b)) / np.maximum(hull, _EPSILON) - weight * shape)


def _middle(boxes: Boxes) -> Floats:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _distance(a: Floats, b: Floats) -> Floats:
    """Return the squared distance [P] of points [P, 2]."""
    return np.asarray(((a - b) ** 2).sum(axis=1))
