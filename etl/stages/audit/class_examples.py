"""The boxes that the audit page shows of each trained class: the smallest, one near the median size and the largest."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes as bx
from etl.columns import find_places
from etl.stages.audit.examples import Example
from etl.stages.audit.tally import Ints, coded, image_sizes

MOST = 20  # classes
_BOXES_AT_ONCE = 100_000
_NEAR = 0.1  # of the boxes of a class: no more lie between the median and a box near it, in the order by size


def choose_class_examples(images: pa.Table, objects: pa.Table) -> dict[str, list[Example]]:
    """Return examples of the classes with the most trained boxes, the class with the most first.

    Equal sizes, and sizes near the median, leave a choice: boxes of groups that are not shown yet come first, then
    those of other images. The order of the tables does not matter.
    """
    owner = find_places(objects["image_id"], images["image_id"])
    objects, owner = objects.filter(pa.array(owner >= 0)), owner[owner >= 0]
    names, category = coded(objects["category"])
    sides = _sides(images, objects, owner)
    order = _order(sides, images, objects, owner)
    groups = coded(pc.coalesce(images["group"], images["path"]))[1][owner]
    number = np.bincount(category, minlength=len(names))
    examples = {}
    for code in np.argsort(-number, kind="stable")[:MOST].tolist():
        own = order[category[order] == code]
        chosen = _choose(sides[own], groups[own], owner[own])
        examples[names[code]] = [
            _example(rank, sides[place], images.slice(owner[place], 1), objects.slice(place, 1))
            for rank, place in ((rank, int(own[place])) for rank, place in chosen.items())
        ]
    return examples


def _sides(images: pa.Table, objects: pa.Table, owner: Ints) -> NDArray[np.float64]:
    """Return the side lengths [N] of the boxes within their images, in px as shown."""
    wh, sides = image_sizes(images), [np.zeros(0)]
    for start in range(0, objects.num_rows, _BOXES_AT_ONCE):
        some = slice(start, start + _BOXES_AT_ONCE)
        xyxy = bx.from_table(objects.select(bx.XYXY).slice(start, _BOXES_AT_ONCE))
        sides.append(bx.side_length(bx.clip(xyxy, (0, 0, *wh[owner[some]].T))).round(1))
    return np.concatenate(sides)


def _order(sides: NDArray[np.float64], images: pa.Table, objects: pa.Table, owner: Ints) -> Ints:
    """Return the places of the boxes [N], the smallest first; of equal ones by image and id."""
    rank = np.argsort(pc.sort_indices(images["path"]).to_numpy())  # of each image by its path
    columns = {"side": sides, "path": rank[owner], "annotation_id": objects["annotation_id"]}
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


def _example(rank: str, side: float, image: pa.Table, box: pa.Table) -> Example:
    (of_image,), (of_box,) = image.to_pylist(), box.to_pylist()
    return Example("", f"{rank}, {side:.1f} px, {of_image['path']}", of_image, of_box)
