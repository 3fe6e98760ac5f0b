"""What changed between two snapshots: images, and boxes by class and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from etl.boxes import BUCKETS, XYXY, bucket, from_rows, iou, side_length
from etl.snapshots.snapshot import Snapshot

SAME_OBJECT = 0.5  # IoU from which a box that went and one that came are one object, moved or renamed
_SAID = ("category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")

Box = Mapping[str, Any]
Counts = dict[str, dict[str, int]]


def diff(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the answer of `speck diff`: counts of images, and of source boxes by class and size, each
    added, removed and changed.

    An image is changed when its bytes are; a box when it was moved, resized, renamed or flagged anew. A changed box
    is counted under what it is now.
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
    changed = [new[name] for name in old.keys() & new.keys() if _said(old[name]) != _said(new[name])]
    gone, come = (
        _by_image(old[name] for name in old.keys() - new.keys()),
        _by_image(new[name] for name in new.keys() - old.keys()),
    )
    added, removed = [], []
    for image in gone.keys() | come.keys():
        pairs = _pairs(gone[image], come[image])
        stayed = set(pairs.values())
        changed += [come[image][row] for row in pairs.values()]
        removed += [box for row, box in enumerate(gone[image]) if row not in pairs]
        added += [box for row, box in enumerate(come[image]) if row not in stayed]
    return {"added": _counts(added), "removed": _counts(removed), "changed": _counts(changed)}


def _by_id(annotations: pa.Table) -> dict[str, Box]:
    return {row["annotation_id"]: row for row in annotations.select(["annotation_id", "image_id", *_SAID]).to_pylist()}


def _said(box: Box) -> list[Any]:
    return [box[name] for name in _SAID]


def _by_image(boxes: Iterable[Box]) -> defaultdict[str, list[Box]]:
    found: defaultdict[str, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: str(box["annotation_id"])):
        found[box["image_id"]].append(box)
    return found


def _pairs(gone: list[Box], come: list[Box]) -> dict[int, int]:
    """Return which box that went is which that came: the best overlaps first, each box once."""
    overlap = iou(*(from_rows(boxes) for boxes in (gone, come)))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = (int(number) for number in np.unravel_index(place, overlap.shape))
        if overlap[row, column] < SAME_OBJECT:
            break
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs


def _counts(boxes: list[Box]) -> Counts:
    found: Counts = {}
    sizes = bucket(side_length(from_rows(boxes)))
    for box, size in zip(boxes, sizes, strict=True):
        mine = found.setdefault(box["category"], dict.fromkeys(BUCKETS, 0))
        mine[BUCKETS[size]] += 1
    return {name: found[name] for name in sorted(found)}
