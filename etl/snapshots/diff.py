"""Compare two snapshots: changed images, and changed boxes by class and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from etl.boxes import BUCKETS, XYXY, bucket, from_rows, iou, side_length
from etl.snapshots.snapshot import Snapshot

SAME_OBJECT = 0.5  # IoU from which a removed and an added box are one object that was moved or renamed
_COMPARED = ("category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")

Box = Mapping[str, Any]
Counts = dict[str, dict[str, int]]


def diff(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the answer of `speck diff`: numbers of added, removed and changed images, and of source boxes by class
    and size.

    An image is changed if its bytes are; a box if its coordinates, category or flags are. A changed box is counted with
    its new class and size.
    """
    return {
        "images": _images(before.table("images"), after.table("images")),
        "boxes": _boxes(before.table("annotations"), after.table("annotations")),
    }


def _images(before: pa.Table, after: pa.Table) -> dict[str, int]:
    old, new = (
        dict(zip(table["image_id"].to_pylist(), table["sha256"].to_pylist(), strict=True)) for table in (before, after)
    )
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}


def _boxes(before: pa.Table, after: pa.Table) -> dict[str, Counts]:
    old, new = _by_id(before), _by_id(after)
    changed = [
        new[name] for name in old.keys() & new.keys() if _compared_values(old[name]) != _compared_values(new[name])
    ]
    only_old = _by_image(old[name] for name in old.keys() - new.keys())
    only_new = _by_image(new[name] for name in new.keys() - old.keys())
    added, removed = [], []
    for image in only_old.keys() | only_new.keys():
        pairs = _pair_by_overlap(only_old[image], only_new[image])
        paired = set(pairs.values())
        changed += [only_new[image][row] for row in pairs.values()]
        removed += [box for row, box in enumerate(only_old[image]) if row not in pairs]
        added += [box for row, box in enumerate(only_new[image]) if row not in paired]
    return {"added": _counts(added), "removed": _counts(removed), "changed": _counts(changed)}


def _by_id(annotations: pa.Table) -> dict[str, Box]:
    return {
        row["annotation_id"]: row for row in annotations.select(["annotation_id", "image_id", *_COMPARED]).to_pylist()
    }


def _compared_values(box: Box) -> list[Any]:
    return [box[name] for name in _COMPARED]


def _by_image(boxes: Iterable[Box]) -> defaultdict[str, list[Box]]:
    boxes_of_image: defaultdict[str, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: str(box["annotation_id"])):
        boxes_of_image[box["image_id"]].append(box)
    return boxes_of_image


def _pair_by_overlap(old: list[Box], new: list[Box]) -> dict[int, int]:
    """Return the index of the new box for each old box of the same object: greedy, highest IoU first, each box once."""
    overlap = iou(*(from_rows(boxes) for boxes in (old, new)))
    pairs: dict[int, int] = {}
    paired: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = (int(number) for number in np.unravel_index(place, overlap.shape))
        if overlap[row, column] < SAME_OBJECT:
            break
        if row not in pairs and column not in paired:
            pairs[row] = column
            paired.add(column)
    return pairs


def _counts(boxes: list[Box]) -> Counts:
    counts: Counts = {}
    sizes = bucket(side_length(from_rows(boxes)))
    for box, size in zip(boxes, sizes, strict=True):
        by_size = counts.setdefault(box["category"], dict.fromkeys(BUCKETS, 0))
        by_size[BUCKETS[size]] += 1
    return {name: counts[name] for name in sorted(counts)}
