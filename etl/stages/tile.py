"""Tiles of an image: windows at each scale, with their labels and ignore regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.ids import fraction
from etl.plan import GRID, Plan, TilePlan, Window, window_step
from etl.region import Region

VERSION = 3
_PAIRS = 2**18  # of a window and a box, considered at once


@dataclass(frozen=True)
class Tile:
    """A window of an image at one scale; boxes and ignore regions in sample pixels."""

    split: str
    window: Window
    scale: float
    labelled: NDArray[np.int64]  # [n] rows of the image's boxes that are labels here
    boxes: bx.Boxes  # [n, 4]
    visibility: NDArray[np.float64]  # [n]
    ignored: NDArray[np.int64]  # [m] rows of the image's boxes
    too_small: NDArray[np.bool_]  # [m] which are ignored for their size here alone: a finer scale shows them whole
    ignore: bx.Boxes  # [m, 4]
    near: bool  # a label of the image touches the window or lies less than half its side away

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the sample in its own pixels."""
        return sample_wh(self.window, self.scale)


def sample_wh(window: Window, scale: float) -> tuple[int, int]:
    """Return width and height of the sample that shows a window at a scale, in whole pixels."""
    x0, y0, x1, y1 = window
    return max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1)


def cut_tiles(
    size_wh: tuple[int, int],
    boxes: bx.Boxes,
    ignore: NDArray[np.bool_],
    plan: TilePlan,
    regions: Sequence[Region] | None = None,
) -> list[Tile]:
    """Return every tile of an image with boxes [N, 4] in source pixels, of which `ignore` [N] are not labels.

    A box is a label in a tile that shows at least `min_visibility` of its area. A smaller visible part, and any visible
    part of an ignored box, is an ignore region; so is a part with a side below `coarse_min_side` if a finer scale shows
    the box whole. Tiles do not cross regions; without regions all are train tiles.
    """
    width, height = size_wh
    clipped = bx.clip(boxes, (0, 0, width, height))
    tiles: list[Tile] = []
    for split, frame in regions or [Region("train", Window(0, 0, width, height))]:
        places = list(_windows(frame, plan))
        finest = finest_whole(clipped, frame, plan)
        at_once = max(_PAIRS // max(len(boxes), 1), 1)
        for first in range(0, len(places), at_once):
            tiles += _cut(split, places[first : first + at_once], clipped, ignore, finest, plan)
    return tiles


def _cut(
    split: str,
    places: Sequence[tuple[float, Window]],
    boxes: bx.Boxes,
    ignore: NDArray[np.bool_],
    finest: NDArray[np.float64],
    plan: TilePlan,
) -> Iterator[Tile]:
    """Yield the tiles at these scales and windows, computed for all pairs of a window and a box in it at once."""
    windows = np.array([window for _, window in places])  # [T, 4]
    tile_of, box_of = np.nonzero(bx.touches(boxes, windows.T[..., None]))  # [P] each, by tile
    near = np.any(bx.touches(boxes[~ignore], _enlarged(windows).T[..., None]), axis=1)
    wh = np.array([sample_wh(window, scale) for scale, window in places])  # [T, 2]
    true_scale = np.tile(wh / (windows[:, 2:] - windows[:, :2]), 2)  # not quite `scale`: samples have whole pixels
    of_pair, window_of_pair = boxes[box_of], windows[tile_of].T
    visibility = bx.visibility(of_pair, window_of_pair)
    in_window = (bx.clip(of_pair, window_of_pair) - np.tile(windows[tile_of, :2], 2)) * true_scale[tile_of]
    in_sample = bx.clip(in_window, (0, 0, *wh[tile_of].T))
    is_visible = ~ignore[box_of] & (visibility >= plan.min_visibility)
    scale_of = np.array([scale for scale, _ in places])[tile_of]
    side = bx.size(in_sample).min(axis=1)
    is_label = is_visible & ~is_too_small(side, scale_of, finest[box_of], plan)
    ends = np.searchsorted(tile_of, np.arange(len(places) + 1))
    for number, (scale, window) in enumerate(places):
        pairs = np.arange(ends[number], ends[number + 1])
        labelled, ignored = pairs[is_label[pairs]], pairs[~is_label[pairs]]
        yield Tile(
            split=split,
            window=window,
            scale=scale,
            labelled=box_of[labelled],
            boxes=in_sample[labelled],
            visibility=visibility[labelled],
            ignored=box_of[ignored],
            too_small=is_visible[ignored],
            ignore=in_sample[ignored],
            near=bool(near[number]),
        )


def finest_whole(boxes: bx.Boxes, frame: Window, plan: TilePlan) -> NDArray[np.float64]:
    """Return the finest scale [N] at which a window of a frame shows each box whole; 0 where none does."""
    finest = np.zeros(len(boxes))
    low, high = boxes[:, :2] - frame[:2], boxes[:, 2:] - frame[:2]
    length = np.array([frame.x1 - frame.x0, frame.y1 - frame.y0])
    for scale in sorted(plan.scales):
        inside = (low >= 0) & (high <= np.minimum(reach(low, length, plan, scale), length))
        finest[inside.all(axis=1)] = scale
    return finest


def reach(low: NDArray[np.float64], length: NDArray[Any], plan: TilePlan, scale: float) -> NDArray[np.float64]:
    """Return how far along its axis the last window that starts at or before each coordinate reaches.

    `length` is that of the axis, in the same shape or one that broadcasts.
    """
    side = plan.side(scale)
    last = np.where(length > side, -(-(length - side) // GRID) * GRID, 0)
    step = window_step(side, plan.overlap)
    start: NDArray[np.float64] = np.where(low >= last, last, np.floor(low / step) * step)
    return start + side


def is_too_small(side: Any, scale: Any, finest: Any, plan: TilePlan) -> Any:
    """Return whether parts of boxes with these shorter sides in the sample are left to a finer scale.

    `finest` is the finest scale that shows the box whole. There and at any finer scale every box is a label.
    """
    return (side < (plan.coarse_min_side or 0.0)) & (finest > scale)


def _windows(frame: Window, plan: TilePlan) -> Iterator[tuple[float, Window]]:
    x, y = frame.x0, frame.y0
    for scale in plan.scales:
        for x0, y0, x1, y1 in plan.windows(frame.x1 - x, frame.y1 - y, scale):
            yield scale, Window(x0 + x, y0 + y, x1 + x, y1 + y)


def label_weights(tiles: Sequence[Tile], count: int) -> NDArray[np.float64]:
    """Return the weight of each of the image's `count` boxes: 1/k if it is a label in k tiles, 0 if in none."""
    labelled = np.zeros(count)
    for tile in tiles:
        labelled[tile.labelled] += 1
    return np.divide(1.0, labelled, out=np.zeros(count), where=labelled > 0)


def choose_negative_thresholds(
    near: Sequence[str], far: Sequence[str], labelled: int, share: float
) -> tuple[float, float]:
    """Return the thresholds on `fraction(sample_id)` below which empty train tiles near and far from objects are kept.

    `near` and `far` are the sample ids of the empty tiles, `labelled` is the number of tiles with labels. The kept
    tiles are `share` of all, near and far in the proportion in which they occur; all are kept where there are too few.
    """
    empty = len(near) + len(far)
    kept = min(round(labelled * share / (1 - share)), empty) if share < 1 else empty
    kept_near = round(kept * len(near) / empty) if empty else 0
    return _threshold(near, kept_near), _threshold(far, kept - kept_near)


def _threshold(sample_ids: Sequence[str], kept: int) -> float:
    """Return the threshold below which the fractions of `kept` of the ids lie."""
    if kept >= len(sample_ids):
        return 1.0
    fractions = sorted(fraction(name) for name in sample_ids)
    return (fractions[kept - 1] + fractions[kept]) / 2 if kept > 0 else 0.0


def keeps_negative(sample_id: str, near: bool, plan: Plan) -> bool:
    """Return whether an empty train tile is kept, given whether it lies near an object."""
    far_threshold = plan.negatives if plan.negatives_far is None else plan.negatives_far
    return fraction(sample_id) < (plan.negatives if near else far_threshold)


def _enlarged(windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the windows [T, 4] with half their longer side added on each side."""
    margin = (windows[:, 2:] - windows[:, :2]).max(axis=1, keepdims=True) / 2
    enlarged: NDArray[np.float64] = windows + margin * (-1, -1, 1, 1)
    return enlarged
