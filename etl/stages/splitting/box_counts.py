"""Count the trained boxes of every image by size bucket and class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import BUCKETS, SMALL_BUCKETS, bucket, from_table, side_length
from etl.plan import Window
from etl.stages.rows import ImageRow

Counts = NDArray[np.int64]


class BoxCounts(NamedTuple):
    """Boxes of each image, in the order of the images."""

    sizes: Counts  # [images, buckets]
    categories: Counts  # [images, classes]
    names: tuple[str, ...]  # of the classes


def gate_buckets(metric: str) -> list[int]:
    """Return the indices of the size buckets that a metric such as AP_small measures.

    `small` is COCO's range, everything below 32 px; a metric without a size measures all.
    """
    name = metric.partition("_")[2]
    if not name:
        return [*range(len(BUCKETS))]
    return [*range(SMALL_BUCKETS)] if name == BUCKETS[SMALL_BUCKETS - 1] else [BUCKETS.index(name)]


def count_boxes(image_ids: Sequence[str], boxes: pa.Table) -> BoxCounts:
    """Return the counts of the boxes (after the ontology) that are objects, not ignore regions or crowds."""
    boxes = boxes.filter(pc.invert(pc.or_(boxes["ignore"], boxes["crowd"])))
    names = tuple(sorted(set(boxes["category"].to_pylist())))
    image = pc.index_in(boxes["image_id"], pa.array(image_ids, pa.string())).to_numpy(zero_copy_only=False)
    category = pc.index_in(boxes["category"], pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    known = ~np.isnan(image.astype(np.float64))
    image, category = image[known].astype(np.int64), category[known].astype(np.int64)
    size = bucket(side_length(from_table(boxes)))[known]
    return BoxCounts(
        _matrix(image, size, len(image_ids), len(BUCKETS)), _matrix(image, category, len(image_ids), len(names)), names
    )


def _matrix(row: Counts, column: Counts, rows: int, columns: int) -> Counts:
    return np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)


def boxes_in_region(image: ImageRow, boxes: pa.Table, window: Window) -> pa.Table:
    """Return the boxes of a divided image whose centre lies in a region."""
    corners = from_table(boxes)
    x, y = corners[:, [0, 2]].mean(axis=1), corners[:, [1, 3]].mean(axis=1)
    inside = (x >= window.x0) & (x < window.x1) & (y >= window.y0) & (y < window.y1)
    same = np.array(boxes["image_id"].to_pylist(), dtype=object) == image["image_id"]
    return boxes.filter(pa.array(inside & same.astype(bool)))
