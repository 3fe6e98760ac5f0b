"""How many feature cells the label assigners of known detectors give a box of some size.

Sizes are network pixels. The cells of a level of stride s have their centres at s / 2 + k s. The number of candidates
depends on the position of the box, which augmentation changes; shares and means are therefore over all positions.

- `point_in_box`: every cell whose centre lies in the box (FCOS, Tian et al. 1904.01355, without size ranges).
- `tal`: the same after sides below the second stride are enlarged to it (TOOD, Feng et al. 2108.07755, as in
  Ultralytics since 8.4). Of these candidates the TOPK whose score and overlap are highest become positives, and a cell
  that several boxes want goes to the one that it overlaps most.
- `ratio`: every anchor whose sides differ from the box's by less than a factor of 4, in three cells (YOLOv5).
- `max_iou`: every anchor whose IoU with the box reaches 0.5 (RetinaNet, Lin et al. 1708.02002, without the rescue of
  the best anchor).
- `nwd`: the same with a normalised Gaussian Wasserstein distance of 0.7 and a constant of 12.7 px (Wang et al.
  2110.13389).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl.boxes import NWD_SCALE, Boxes, size

Floats = NDArray[np.float64]

WITH_ANCHORS = ("ratio", "max_iou", "nwd")
NAMES = ("point_in_box", "tal", *WITH_ANCHORS)
RATIO = 4.0  # of sides, YOLOv5's anchor_t
RATIO_CELLS = 3  # the box's own and the two nearest
IOU, NWD = 0.5, 0.7  # thresholds from which an anchor is positive
TOPK = 10  # positives that `tal` gives a box at most (Ultralytics' one-to-many head)
_STEPS = 32  # positions per pixel
_PLACES = 2  # of a square's candidates, per pixel
_BOXES = 256  # whose overlaps are computed at once
_OFFSETS = 16  # of an anchor from a box, per axis
_PLACED = 512  # positions of a box among the cells of all levels


@dataclass(frozen=True)
class Coverage:
    """The candidates of boxes of given sizes, over all positions."""

    covered: Floats  # [N] share of positions with at least one candidate
    candidates: Floats  # [N] mean number of candidates


def enlarge_tiny(wh: Floats, strides: Sequence[int]) -> Floats:
    """Return sizes [N, 2] as `tal` uses them: sides below the second stride are enlarged to it."""
    return np.maximum(wh, tiny_side(strides))


def tiny_side(strides: Sequence[int]) -> int:
    """Return the side below which `tal` enlarges a box."""
    return strides[1] if len(strides) > 1 else strides[0]


def cell_centres(size_wh: tuple[int, int], strides: Sequence[int]) -> Floats:
    """Return the cell centres [P, 2] of an input of this size, level by level, row by row."""
    levels = []
    for stride in strides:
        columns, rows = (np.arange(stride / 2, side, stride) for side in size_wh)
        levels.append(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2))
    return np.concatenate(levels)


def candidate_mask(name: str, boxes: Boxes, points: Floats, strides: Sequence[int]) -> NDArray[np.bool_]:
    """Return which cell centres [P, 2] are candidates of boxes [N, 4] as a mask [N, P]; point_in_box or tal."""
    if name not in ("point_in_box", "tal"):
        raise ValueError(f"{name}: not an assigner by cell centres")
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, size(boxes)
    half = (enlarge_tiny(side, strides) if name == "tal" else side) / 2
    apart = np.abs(points - middle[:, None])  # [N, P, 2]
    return np.asarray((apart < half[:, None]).all(axis=2))


def coverage_of(
    name: str, wh: Floats, strides: Sequence[int], anchors: Sequence[Sequence[Sequence[float]]] = ()
) -> Coverage:
    """Return the coverage of boxes of sizes wh [N, 2] by an assigner; `anchors` [level][k](w, h) if it uses them."""
    if name == "point_in_box":
        return _cover_by_centres(wh, tuple(strides))
    if name == "tal":
        return _cover_by_centres(enlarge_tiny(wh, strides), tuple(strides))
    if name not in NAMES:
        raise ValueError(f"no assigner {name}; there are {', '.join(NAMES)}")
    sizes, rows = np.unique(wh, axis=0, return_inverse=True)
    parts = [
        _cover_by_anchors(name, sizes[first : first + _BOXES], strides, anchors)
        for first in range(0, len(sizes), _BOXES)
    ]
    covered, candidates = np.concatenate([np.empty((2, 0)), *parts], axis=1)[:, rows.ravel()]
    return Coverage(covered, candidates)


def positives_of(areas: Floats, strides: Sequence[int]) -> Floats:
    """Return how many positives [N] `tal` gives a box on average, from the area [N] that holds its own candidates.

    The area is the box enlarged as `tal` does, without what a neighbour gets. It is taken as a square, and its position
    as random.
    """
    period = int(np.lcm.reduce(strides))
    start = (np.arange(period * _PLACES) + 0.5) / _PLACES
    side = np.minimum(np.sqrt(areas), np.sqrt(TOPK + 1) * strides[0] + strides[0])  # beyond it, TOPK at any position
    held = np.stack(
        [
            np.floor((start + side[:, None]) / stride - 0.5) - np.floor(start / stride - 0.5)  # [N, P] centres
            for stride in strides
        ]
    )
    candidates = np.einsum("lnp,lnq->npq", held, held)
    return np.asarray(np.minimum(candidates, TOPK).mean(axis=(1, 2)))


def best_iou(wh: Floats, strides: Sequence[int], reach: float, kept: Floats) -> Floats:
    """Return the highest IoU [N] that one of the candidates of `tal` is expected to give a box, over all positions.

    A head predicts the distances from the cell's centre to the four edges, from 0 to `reach` strides: of a box beside
    the cell, or one that reaches further, it cannot give more than a part. Infinite reach has no such limit. `kept`
    [N, L] is what a level's errors leave of the IoU.
    """
    period = int(np.lcm.reduce(strides))
    steps = np.array(strides, dtype=np.float64)[:, None]
    centre = np.arange(period) + 0.5
    apart = np.abs(centre % steps - steps / 2)  # [L, P] to the nearest cell's centre
    best = [
        _best_of_levels(wh[first : first + _BOXES], strides, reach, apart, kept[first : first + _BOXES])
        for first in range(0, len(wh), _BOXES)
    ]
    return np.concatenate([np.empty(0), *best])


def _best_of_levels(wh: Floats, strides: Sequence[int], reach: float, apart: Floats, kept: Floats) -> Floats:
    limit = reach * np.array(strides, dtype=np.float64)[:, None]  # [L, 1]
    half = wh[:, :, None, None] / 2  # [N, 2, 1, 1]
    left, right = half + apart, half - apart  # [N, 2, L, P] distances to the far and the near edge
    if np.isfinite(reach):
        shown = np.minimum(left, limit) + np.clip(right, 0.0, limit)
        shared = np.minimum(shown, 2 * half)
    else:
        shown = shared = np.broadcast_to(2 * half, left.shape)
    held = apart < enlarge_tiny(wh, strides)[:, :, None, None] / 2
    inside = shared[:, 0, :, :, None] * shared[:, 1, :, None, :]  # [N, L, P, P]
    drawn = shown[:, 0, :, :, None] * shown[:, 1, :, None, :]
    iou = inside / (wh.prod(axis=1)[:, None, None, None] + drawn - inside) * kept[:, :, None, None]
    candidate = held[:, 0, :, :, None] & held[:, 1, :, None, :]
    return np.asarray(np.where(candidate, iou, 0.0).max(axis=1).mean(axis=(1, 2)))


def matches_ratio(wh: Any, anchor: Any) -> Any:
    """Return which sizes [..., 2] an anchor [2] matches under `ratio`; NumPy arrays or Torch tensors that broadcast."""
    ratio = wh / anchor
    return ((ratio < RATIO) & (ratio > 1 / RATIO)).all(-1)


def _cover_by_centres(wh: Floats, strides: tuple[int, ...]) -> Coverage:
    """Return the coverage by cell centres of any level, by inclusion and exclusion over the levels."""
    covered = np.zeros(len(wh))
    for count in range(1, len(strides) + 1):
        for levels in combinations(strides, count):
            held = np.searchsorted(_gaps(levels), wh, side="right") / len(_gaps(levels))  # [N, 2] of the positions
            covered -= (-1) ** count * held.prod(axis=1)
    candidates = sum((wh / stride).prod(axis=1) for stride in strides)
    return Coverage(np.clip(covered, 0, 1), np.asarray(candidates, dtype=np.float64))


@cache
def _gaps(strides: tuple[int, ...]) -> Floats:
    """Return the side length that holds a centre of every level, for evenly spread starts, sorted."""
    period = int(np.lcm.reduce(strides))
    start = (np.arange(period * _STEPS) + 0.5) / _STEPS
    return np.sort(np.max([(stride / 2 - start) % stride for stride in strides], axis=0))


def _cover_by_anchors(
    name: str, wh: Floats, strides: Sequence[int], anchors: Sequence[Sequence[Sequence[float]]]
) -> Floats:
    """Return the share of positions [N] with a positive cell of any anchor, and the mean number of them, as [2, N]."""
    covered, candidates = np.zeros((len(wh), _PLACED), dtype=np.bool_), np.zeros(len(wh))
    places = _spread(_PLACED) * int(np.lcm.reduce(strides))
    steps = (np.arange(_OFFSETS) + 0.5) / _OFFSETS
    across, down = (axis.ravel() for axis in np.meshgrid(steps, steps))
    for stride, level in zip(strides, anchors, strict=True):
        nearest = np.abs(places % stride - stride / 2)  # [P, 2] from the cell's centre
        for anchor in np.asarray(level, dtype=np.float64):
            if name == "ratio":
                hit = matches_ratio(wh, anchor)
                covered |= hit[:, None]
                candidates += RATIO_CELLS * hit
                continue
            covered |= _is_positive(name, wh, anchor, nearest[:, 0], nearest[:, 1])
            reach = _reach(name, wh, anchor)
            inside = _is_positive(name, wh, anchor, across * reach[:, :1], down * reach[:, 1:]).mean(axis=1)
            candidates += inside * 4 * reach.prod(axis=1) / stride**2
    return np.stack([covered.mean(axis=1), candidates])


def _spread(number: int) -> Floats:
    """Return evenly spread points [P, 2] of the unit square, no two in one row or column (an additive recurrence)."""
    plastic = 1.32471795724474602596  # x³ = x + 1
    return (0.5 + np.arange(number)[:, None] / plastic ** np.array([1, 2])) % 1


def _reach(name: str, wh: Floats, anchor: Floats) -> Floats:
    """Return the offsets [N, 2] from which an anchor is no positive of a box."""
    if name != "nwd":
        return np.asarray((wh + anchor) / 2)
    left = (NWD_SCALE * np.log(1 / NWD)) ** 2 - ((wh - anchor) ** 2).sum(axis=1) / 4
    return np.asarray(np.sqrt(np.maximum(left, 0.0))[:, None].repeat(2, axis=1))


def _is_positive(name: str, wh: Floats, anchor: Floats, across: Floats, down: Floats) -> NDArray[np.bool_]:
    """Return whether an anchor at offsets [P] or [N, P] across and down from a box is positive [N, P]."""
    if name == "nwd":
        return np.asarray(across**2 + down**2 < _reach(name, wh, anchor)[:, :1] ** 2)
    shared = _shared(wh[:, :1], anchor[0], across) * _shared(wh[:, 1:], anchor[1], down)
    return np.asarray(shared >= IOU * (wh.prod(axis=1)[:, None] + anchor.prod() - shared))


def _shared(side: Floats, anchor: float, offset: Floats) -> Floats:
    """Return the overlap of a side and an anchor's side whose centres are this far apart."""
    shared: Floats = np.clip((side + anchor) / 2 - offset, 0.0, np.minimum(side, anchor))
    return shared
