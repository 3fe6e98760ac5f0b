"""Count the boxes of every image, and those that evaluation counts by size bucket and class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import BUCKETS, SMALL_BUCKETS, area, bucket, from_table, side_length
from etl.columns import find_places
from etl.plan import Window
from etl.stages.rows import ImageRow

Counts = NDArray[np.int64]

ENOUGH_SMALL = 50  # small objects of a dataset from which `gate.metric: auto` is about them
_BY_AREA = BUCKETS.index(
    "small"
)  # evaluation takes the buckets from here on by area, as COCO does, the others by sides


class BoxCounts(NamedTuple):
    """Boxes of each image, in the order of the images."""

    trained: Counts  # [images], all boxes that are neither ignore regions nor crowds
    sizes: Counts  # [images, buckets], without difficult boxes, which evaluation ignores
    categories: Counts  # [images, classes], without difficult boxes
    names: tuple[str, ...]  # of the classes


def gate_buckets(metric: str, sizes: Counts) -> list[int]:
    """Return the indices of the size buckets that a metric such as AP_small measures.

    `small` is COCO's range, everything below 32 px; a metric without a size measures all. `auto` is AP_small where the
    dataset has ENOUGH_SMALL such objects or more; `sizes` [buckets] is the number of its objects.
    """
    if metric == "auto":
        metric = "AP_small" if sizes[:SMALL_BUCKETS].sum() >= ENOUGH_SMALL else "AP"
    name = metric.partition("_")[2]
    if not name:
        return [*range(len(BUCKETS))]
    return [*range(SMALL_BUCKETS)] if name == BUCKETS[SMALL_BUCKETS - 1] else [BUCKETS.index(name)]


def count_boxes(image_ids: Sequence[str], boxes: Iterable[pa.Table]) -> BoxCounts:
    """Return the counts of the boxes (after the ontology) that are objects, not ignore regions or crowds.

    The boxes come in pieces.
    """
    ids = pa.array(image_ids, pa.string())
    trained, sizes = np.zeros(len(ids), np.int64), np.zeros((len(ids), len(BUCKETS)), np.int64)
    categories, names = np.zeros((len(ids), 0), np.int64), list[str]()
    for piece in boxes:
        is_region = pc.or_(piece["ignore"], piece["crowd"])
        objects = piece.filter(pc.and_(pc.is_in(piece["image_id"], ids), pc.invert(is_region)))
        image = find_places(objects["image_id"], ids)
        evaluated = objects["difficult"].fill_null(0).to_numpy() <= 0
        trained += np.bincount(image, minlength=len(ids))
        np.add.at(sizes, (image[evaluated], _buckets(objects)[evaluated]), 1)
        new = [name for name in pc.unique(objects["category"]).to_pylist() if name not in names]
        names += new
        categories = np.pad(categories, ((0, 0), (0, len(new))))
        np.add.at(categories, (image[evaluated], find_places(objects["category"], names)[evaluated]), 1)
    order = sorted(range(len(names)), key=names.__getitem__)
    return BoxCounts(trained, sizes, categories[:, order], tuple(names[code] for code in order))


def _buckets(boxes: pa.Table) -> Counts:
    """Return the size buckets in which evaluation counts boxes: from `small` on by the area that their label states."""
    xyxy = from_table(boxes)
    stated = boxes["area"].to_numpy().astype(np.float64)  # null becomes NaN
    by_side = bucket(side_length(xyxy))
    by_area = bucket(np.sqrt(np.where(np.isnan(stated), area(xyxy), np.maximum(stated, 0))))
    return np.where(by_side < _BY_AREA, by_side, np.maximum(by_area, _BY_AREA))


def boxes_in_region(image: ImageRow, boxes: pa.Table, window: Window) -> pa.Table:
    """Return the boxes of a divided image whose centre lies in a region."""
    corners = from_table(boxes)
    x, y = corners[:, [0, 2]].mean(axis=1), corners[:, [1, 3]].mean(axis=1)
    inside = (x >= window.x0) & (x < window.x1) & (y >= window.y0) & (y < window.y1)
    return boxes.filter(pc.and_(pa.array(inside), pc.equal(boxes["image_id"], image["image_id"])))
