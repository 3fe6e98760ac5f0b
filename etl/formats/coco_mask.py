"""The bounding box and the area of a segmentation: polygons, or a run-length encoded mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from etl.formats.coco_numbers import number, whole

Corners = tuple[float, float, float, float]


class Extent(NamedTuple):
    """The bounding box of a segmentation, and its area where it is a mask."""

    xyxy: Corners
    area: float | None


def extent(segmentation: Any) -> Extent | None:
    """Return the extent of a segmentation; None if it has none or cannot be read."""
    if isinstance(segmentation, dict):
        return _extent_of_mask(segmentation)
    outlines = polygons(segmentation)
    if not outlines:
        return None
    x = [value for outline in outlines for value in outline[0::2]]
    y = [value for outline in outlines for value in outline[1::2]]
    return Extent((min(x), min(y), max(x), max(y)), None)


def polygons(segmentation: Any) -> list[tuple[float, ...]]:
    """Return the polygons of a segmentation as x y x y ..., of at least three points each; empty if one is none.

    Accepts a list of polygons, a single polygon, and a polygon as a list of points.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return []
    lists: list[Any] = segmentation
    if not any(isinstance(part, list) for part in lists):
        lists = [lists]
    elif len(lists) >= 3 and all(isinstance(part, list) and len(part) == 2 for part in lists):
        lists = [_flat(lists)]
    found = [_polygon(part) for part in lists]
    return [outline for outline in found if outline is not None] if None not in found else []


def _polygon(part: Any) -> tuple[float, ...] | None:
    if not isinstance(part, list):
        return None
    if len(part) >= 3 and all(isinstance(point, list) and len(point) == 2 for point in part):
        part = _flat(part)
    values = [number(value) for value in part]
    if len(values) < 6 or len(values) % 2:
        return None
    return tuple(value for value in values if value is not None) if None not in values else None


def _flat(points: Iterable[Sequence[Any]]) -> list[Any]:
    return [value for point in points for value in point]


def _extent_of_mask(mask: dict[str, Any]) -> Extent | None:
    size, counts = mask.get("size"), mask.get("counts")
    sides = [whole(side) for side in size] if isinstance(size, list) else []
    height, width = sides if len(sides) == 2 else (None, None)
    runs = _decode_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not height or not width or min(height, width) < 1:
        return None
    lengths = [whole(run) for run in runs]
    if any(length is None or length < 0 for length in lengths):
        return None
    ends = np.cumsum(np.array(lengths, np.int64))  # runs of 0 and 1 by turns, down the columns
    if not len(ends) or ends[-1] != height * width:
        return None
    starts, stops = ends[0 : len(ends) - 1 : 2], ends[1::2]
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    if not len(starts):
        return None
    first, last = starts // height, (stops - 1) // height  # columns
    several = first < last  # such a run reaches the bottom of its first column and the top of its last
    top = 0 if several.any() else int((starts % height).min())
    bottom = height if several.any() else int(((stops - 1) % height).max()) + 1
    box = (float(first.min()), float(top), float(last.max()) + 1, float(bottom))
    return Extent(box, float((stops - starts).sum()))


def _decode_runs(text: str) -> list[int] | None:
    """Return the runs of a compressed mask; None if the text is none.

    A character holds 5 bits of a run; the fourth run and later ones are differences to the last run but one.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more characters of this run follow
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs if shift == 0 else None
