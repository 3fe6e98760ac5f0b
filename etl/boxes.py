"""Geometry of boxes: float64 arrays [N, 4] of x0, y0, x1, y1 in pixels, half-open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import cos, sin
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Boxes = NDArray[np.float64]  # [N, 4]
XYXY = ("x0", "y0", "x1", "y1")  # the columns of a box: left, top, right and bottom edge
BUCKETS = ("very_tiny", "tiny", "small", "medium", "large")
BUCKET_EDGES = (8.0, 16.0, 32.0, 96.0)  # lower edges of all but the first bucket, pixels of sqrt(w * h)
NWD_SCALE = 12.7  # px: the mean size of AI-TOD's objects (Wang et al. 2110.13389)
SMALL_BUCKETS = 3  # are below SMALL
SMALL = BUCKET_EDGES[SMALL_BUCKETS - 1]  # px of sqrt(w * h): COCO's border between small and medium


def as_boxes(values: ArrayLike) -> Boxes:
    """Return the values as a [N, 4] array; an empty sequence gives [0, 4]."""
    return np.asarray(values, dtype=np.float64).reshape(-1, 4)


def from_table(table: pa.Table) -> Boxes:
    """Return the boxes [N, 4] of a table's columns x0, y0, x1, y1; a null becomes NaN."""
    return as_boxes(np.column_stack([table[name].to_numpy() for name in XYXY]))


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Boxes:
    """Return the boxes [N, 4] of rows with the keys x0, y0, x1, y1."""
    return as_boxes([corners(row) for row in rows])


def corners(row: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return the x0, y0, x1, y1 of one row."""
    return row["x0"], row["y0"], row["x1"], row["y1"]


def size(boxes: Boxes) -> Boxes:
    """Return width and height [N, 2]; negative sides count as 0."""
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Return w * h [N]."""
    side = size(boxes)
    return side[:, 0] * side[:, 1]


def side_length(boxes: Boxes) -> NDArray[np.float64]:
    """Return sqrt(w * h) [N], the length that decides the size bucket."""
    return np.sqrt(area(boxes))


def bucket(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return the index into BUCKETS [N] of each length sqrt(w * h); lower edges belong to the upper bucket."""
    return np.digitize(np.asarray(lengths, dtype=np.float64), BUCKET_EDGES)


def clip(boxes: Boxes, window: Sequence[float | NDArray[Any]] | NDArray[Any]) -> Boxes:
    """Return the boxes cut to a window x0 y0 x1 y1, or each to its own; a box outside becomes empty, not negative."""
    x0, y0, x1, y1 = window
    # sides may be arrays [N]: a window for each box
    low, high = np.array([x0, y0, x0, y0]).T, np.array([x1, y1, x1, y1]).T
    cut: Boxes = np.minimum(np.maximum(boxes, low), high)
    return cut


def touches(boxes: Boxes, window: Sequence[float] | NDArray[Any]) -> NDArray[np.bool_]:
    """Return which boxes [N] share area with a window x0 y0 x1 y1; with windows [4, T, 1], which of each [T, N]."""
    (bx0, by0, bx1, by1), (x0, y0, x1, y1) = boxes.T, window
    shared: NDArray[np.bool_] = np.minimum(bx1, x1) > np.maximum(bx0, x0)
    shared &= np.minimum(by1, y1) > np.maximum(by0, y0)
    return shared


def visibility(boxes: Boxes, window: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of each box's own area inside the window, or its own, [N]; 0 for a box without area."""
    own = area(boxes)
    return np.divide(area(clip(boxes, window)), own, out=np.zeros_like(own), where=own > 0)


def to_window(boxes: Boxes, window: Sequence[float], scale: float | NDArray[np.float64]) -> Boxes:
    """Return source-pixel boxes in the pixels of a sample cut at the window and resized by scale, or by one a side."""
    return (boxes - np.array([window[0], window[1]] * 2, dtype=np.float64)) * scale


def from_window(boxes: Boxes, window: Sequence[float], scale: float) -> Boxes:
    """Return sample-pixel boxes in source pixels: the inverse of `to_window`."""
    return boxes / scale + np.array([window[0], window[1]] * 2, dtype=np.float64)


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the pairwise shared area [N, M]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.maximum(high - low, 0.0)  # [N, M, 2]
    shared: NDArray[np.float64] = side[..., 0] * side[..., 1]
    return shared


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the pairwise intersection over union [N, M]; 0 where the union is empty."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def gaussian(boxes: Boxes) -> Boxes:
    """Return centre and half size [..., 4] of boxes [..., 4]: mean and deviations of the Gaussian in a box's place."""
    low, high = boxes[..., :2], boxes[..., 2:]
    both: Boxes = np.concatenate([low + high, np.maximum(high - low, 0.0)], axis=-1) / 2
    return both


def nwd(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the normalised Wasserstein distance [...] of boxes [..., 4], 1 for equal ones: Wang et al. 2110.13389."""
    apart = np.sqrt(((gaussian(a) - gaussian(b)) ** 2).sum(axis=-1))
    return np.asarray(np.exp(-apart / NWD_SCALE))


def hull(polygon: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the axis-aligned box of a polygon given as x y x y ..."""
    xs, ys = polygon[0::2], polygon[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def rotated_corners(cx: float, cy: float, w: float, h: float, radians: float) -> tuple[float, ...]:
    """Return the corners x y x y ... of a box that is rotated about its centre."""
    along, across = (cos(radians), sin(radians)), (-sin(radians), cos(radians))
    return tuple(
        centre + x * w * along[axis] + y * h * across[axis]
        for x, y in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
        for axis, centre in enumerate((cx, cy))
    )


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """Return [N, 4] centre and size of [N, 4] xyxy."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


SIZE_RANGES = ("< 8", "8–16", "16–32", "32–96", "≥ 96")  # px, of BUCKETS  # noqa: RUF001
