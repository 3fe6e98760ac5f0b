"""The boxes that the audit page shows of each trained class: the smallest, one near the median size and the largest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes as bx
from etl.stages.audit.examples import Example
from etl.stages.audit.tally import BoxColumns, Ints, coded, image_sizes

MOST = 20  # classes
_NEAR = 0.1  # of the boxes of a class: no more lie between the median and a box near it, in the order by size


def choose_class_examples(images: pa.Table, objects: pa.Table) -> dict[str, list[Example]]:
    """Return examples of the classes with the most trained boxes, the class with the most first.

    Equal sizes, and sizes near the median, leave a choice: boxes of groups that are not shown yet come first, then
    those of other images. The order of the tables does not matter.
    """
    boxes = BoxColumns.of(images, objects)
    sides = bx.side_length(bx.clip(boxes.xyxy, (0, 0, *image_sizes(images)[boxes.owner].T))).round(1)  # px, as shown
    order = _order(sides, boxes)
    groups = coded(pc.coalesce(images["group"], images["path"]))[1][boxes.owner]
    number = np.bincount(boxes.category, minlength=len(boxes.names))
    examples = {}
    for code in np.argsort(-number, kind="stable")[:MOST].tolist():
        own = order[boxes.category[order] == code]
        chosen = _choose(sides[own], groups[own], boxes.owner[own])
        examples[boxes.names[code]] = [
            _example(rank, sides[own[place]], own[place], boxes, images) for rank, place in chosen.items()
        ]
    return examples


def _order(sides: NDArray[np.float64], boxes: BoxColumns) -> Ints:
    """Return the places of the boxes [N], the smallest first; of equal ones by image and id."""
    path = pa.array(boxes.paths, pa.string()).take(pa.array(boxes.owner))
    columns = {"side": pa.array(sides), "path": path, "annotation_id": boxes.rows["annotation_id"]}
    order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
    places: Ints = order.to_numpy().astype(np.int64)
    return places


def _choose(sides: NDArray[np.float64], groups: Ints, images: Ints) -> dict[str, int]:
    """Return the places of the examples among the boxes of a class [N], the smallest first, by what they are."""
    last = len(sides) - 1
    if last == 0:
        return {"the only box": 0}
    places = np.arange(last + 1)
    near = np.abs(places - last / 2) <= max(_NEAR * last, 0.5)
    wanted = {
        "smallest": (0.0, sides == sides[0]),
        "near the median": (last / 2, near & (last > 1)),
        "largest": (float(last), sides == sides[-1]),
    }
    chosen: dict[str, int] = {}
    for rank, (goal, fits) in wanted.items():
        shown = np.array(list(chosen.values()), dtype=np.int64)
        free = np.setdiff1d(places[fits], shown)
        if len(free):
            is_shown = [np.isin(of[free], of[shown]) for of in (images, groups)]
            chosen[rank] = int(free[np.lexsort((np.abs(free - goal), *is_shown))[0]])
    return chosen


def _example(rank: str, side: float, place: int, boxes: BoxColumns, images: pa.Table) -> Example:
    image = images.slice(boxes.owner[place], 1).to_pylist()[0]
    box = boxes.rows.slice(place, 1).to_pylist()[0]
    return Example("", f"{rank}, {side:.1f} px, {image['path']}", image, box)
