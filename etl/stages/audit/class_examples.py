"""The boxes that the audit page shows of each trained class: the smallest, one near the median size and the largest."""

from __future__ import annotations

from math import ceil, floor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes as bx
from etl.columns import Stack, find_places
from etl.stages.audit.examples import Example
from etl.stages.audit.tally import Ints, coded, image_sizes
from etl.stages.planning.tile_stats import Tables

MOST = 20  # classes
_NEAR = 0.1  # of the boxes of a class: no more lie between the median and a box near it, in the order by size


class _Boxes(NamedTuple):
    """The boxes [N] of all images in the order of their images, those of one image in the order of their ids."""

    owner: Ints  # place of each box's image
    tenths: Ints  # side length within the image, in tenths of a pixel as shown
    category: Ints  # code
    names: list[str]  # of the classes by code


def choose_class_examples(tables: Tables) -> dict[str, list[Example]]:
    """Return examples of the classes with the most trained boxes, the class with the most first.

    Equal sizes, and sizes near the median, leave a choice: boxes of groups that are not shown yet come first, then
    those of other images. The order of the tables does not matter.
    """
    images = tables.images.take(pc.sort_indices(tables.images["path"]))
    tables = tables._replace(images=images)
    boxes = _measure(tables)
    groups = coded(pc.coalesce(images["group"], images["path"]))[1]
    number = dict(enumerate(np.bincount(boxes.category, minlength=len(boxes.names)).tolist()))
    examples = {}
    for code in sorted(number, key=lambda code: (-number[code], boxes.names[code]))[:MOST]:
        own = np.flatnonzero(boxes.category == code)
        own = own[np.argsort(boxes.tenths[own], kind="stable")]
        chosen = _choose(boxes.tenths[own], own, boxes.owner, groups)
        examples[boxes.names[code]] = [_example(rank, int(own[place]), boxes, tables) for rank, place in chosen.items()]
    return examples


def _measure(tables: Tables) -> _Boxes:
    owners, tenths, categories, first = Stack(np.int32), Stack(np.int32), Stack(np.int32), 0
    codes: dict[str, int] = {}
    for images, unordered in tables.pieces():
        boxes, owner = _order(images, unordered)
        for name in pc.unique(boxes["category"]).to_pylist():
            codes.setdefault(name, len(codes))
        wh = image_sizes(images)[owner]
        sides = bx.side_length(bx.clip(bx.from_table(boxes), (0, 0, *wh.T)))
        owners.add(owner + first)
        tenths.add(np.rint(sides.round(1) * 10))
        categories.add(find_places(boxes["category"], list(codes)))
        first += images.num_rows
    return _Boxes(owners.to_array(), tenths.to_array(), categories.to_array(), list(codes))


def _order(images: pa.Table, boxes: pa.Table) -> tuple[pa.Table, Ints]:
    """Return the boxes by image and id, and the place of each one's image."""
    owner = find_places(boxes["image_id"], images["image_id"])
    columns = {"owner": owner, "annotation_id": boxes["annotation_id"]}
    order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
    order = order.filter(pa.array(owner[order.to_numpy()] >= 0))
    return boxes.take(order), owner[order.to_numpy()]


def _choose(tenths: Ints, own: Ints, owner: Ints, groups: Ints) -> dict[str, int]:
    """Return the places of the examples among the boxes of a class [n], the smallest first, by what they are.

    `own` are the boxes of the class; `owner` is the image of any box, `groups` the group of any image.
    """
    last = len(tenths) - 1
    if last == 0:
        return {"the only box": 0}
    smallest = np.arange(np.searchsorted(tenths, tenths[0], "right"))
    largest = np.arange(np.searchsorted(tenths, tenths[-1]), last + 1)
    reach = max(_NEAR * last, 0.5)
    around = np.arange(max(floor(last / 2 - reach), 0), min(ceil(last / 2 + reach), last) + 1)
    near = around[(np.abs(around - last / 2) <= reach) & (last > 1)]
    chosen: dict[str, int] = {}
    for rank, goal, fits in (
        ("smallest", 0.0, smallest),
        ("near the median", last / 2, near),
        ("largest", float(last), largest),
    ):
        shown = np.array(list(chosen.values()), dtype=np.int64)
        free = np.setdiff1d(fits, shown, assume_unique=True)
        if len(free):
            images, others = owner[own[free]], owner[own[shown]]
            is_shown = np.isin(images, others), np.isin(groups[images], groups[others])
            chosen[rank] = int(free[np.lexsort((np.abs(free - goal), *is_shown))[0]])
    return chosen


def _example(rank: str, box: int, boxes: _Boxes, tables: Tables) -> Example:
    place = int(boxes.owner[box])
    image = tables.images.slice(place, 1)
    rows, _ = _order(image, tables.boxes_of(image))
    (of_image,), (of_box,) = image.to_pylist(), rows.slice(box - np.searchsorted(boxes.owner, place), 1).to_pylist()
    return Example("", f"{rank}, {boxes.tenths[box] / 10:.1f} px, {of_image['path']}", of_image, of_box)
