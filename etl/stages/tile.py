"""What each window of an image shows of its boxes: labels, or regions that are neither label nor background."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.ids import fraction
from etl.plan import Plan, TilePlan, Window
from etl.region import Region

VERSION = 2


@dataclass(frozen=True)
class Tile:
    """One window of an image at one scale; boxes and ignore regions in sample pixels."""

    split: str
    window: Window
    scale: float
    labelled: NDArray[np.int64]  # [n] rows of the image's boxes
    boxes: bx.Boxes  # [n, 4]
    visibility: NDArray[np.float64]  # [n]
    ignored: NDArray[np.int64]  # [m] rows of the image's boxes
    ignore: bx.Boxes  # [m, 4]
    near: bool  # a box to be labelled touches the window, or lies less than half its side away

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the sample in its own pixels."""
        return sample_wh(self.window, self.scale)


def sample_wh(window: Window, scale: float) -> tuple[int, int]:
    """Return width and height of the sample that shows a window at a scale, in whole pixels."""
    x0, y0, x1, y1 = window
    return max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1)


def tiles(
    size_wh: tuple[int, int],
    boxes: bx.Boxes,
    ignore: NDArray[np.bool_],
    plan: TilePlan,
    regions: Sequence[Region] | None = None,
) -> list[Tile]:
    """Return every tile of an image with boxes [N, 4] in source pixels, of which `ignore` [N] are no labels.

    A box is a label where at least `min_visibility` of its area is visible; any lesser visible part, and any visible
    part of an ignored box, is an ignore region. No tile reaches beyond its region; without any, all are train tiles.
    """
    width, height = size_wh
    image = bx.clip(boxes, (0, 0, width, height))
    wanted = image[~ignore]
    found = []
    for split, frame in regions or [Region("train", Window(0, 0, width, height))]:
        for scale, window in _windows(frame, plan):
            visible = np.flatnonzero(bx.touches(image, window))
            here = image[visible]
            seen = bx.visibility(here, window)
            label = ~ignore[visible] & (seen >= plan.min_visibility)
            x0, y0, x1, y1 = window
            wh = sample_wh(window, scale)
            true_scale = np.divide(wh * 2, (x1 - x0, y1 - y0) * 2)  # not quite `scale`: samples have whole pixels
            cut = bx.clip(bx.to_window(bx.clip(here, window), window, true_scale), (0, 0, *wh))
            near = bool(bx.touches(wanted, _around(window)).any())
            found.append(
                Tile(split, window, scale, visible[label], cut[label], seen[label], visible[~label], cut[~label], near)
            )
    return found


def _windows(frame: Window, plan: TilePlan) -> Iterator[tuple[float, Window]]:
    x, y = frame.x0, frame.y0
    for scale in plan.scales:
        for x0, y0, x1, y1 in plan.windows(frame.x1 - x, frame.y1 - y, scale):
            yield scale, Window(x0 + x, y0 + y, x1 + x, y1 + y)


def weights(tiles: Sequence[Tile], count: int) -> NDArray[np.float64]:
    """Return 1/k for each of the image's `count` boxes, k being the tiles that label it; 0 where none does."""
    times = np.zeros(count)
    for tile in tiles:
        times[tile.labelled] += 1
    return np.divide(1.0, times, out=np.zeros(count), where=times > 0)


def negative_thresholds(near: Sequence[str], far: Sequence[str], labelled: int, share: float) -> tuple[float, float]:
    """Return the thresholds on `fraction(sample_id)` below which empty train tiles near and far from objects are kept.

    They keep as many of these sample ids as make `share` of all train tiles, next to `labelled` tiles with boxes, near
    and far ones in the proportion they occur in; all of them where there are too few.
    """
    empty = len(near) + len(far)
    wanted = min(round(labelled * share / (1 - share)), empty) if share < 1 else empty
    of_near = round(wanted * len(near) / empty) if empty else 0
    return _threshold(near, of_near), _threshold(far, wanted - of_near)


def _threshold(names: Sequence[str], wanted: int) -> float:
    if wanted >= len(names):
        return 1.0
    places = sorted(fraction(name) for name in names)
    return (places[wanted - 1] + places[wanted]) / 2 if wanted > 0 else 0.0


def keeps_negative(sample_id: str, near: bool, plan: Plan) -> bool:
    """Return whether an empty train tile, near an object or far from any, is kept."""
    of_far = plan.negatives if plan.negatives_far is None else plan.negatives_far
    return fraction(sample_id) < (plan.negatives if near else of_far)


def _around(window: Window) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = window
    room = max(x1 - x0, y1 - y0) / 2
    return x0 - room, y0 - room, x1 + room, y1 + room
