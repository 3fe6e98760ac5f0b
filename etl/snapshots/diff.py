"""Compare two snapshots: changed images, changed boxes by class and size, and changed classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from etl.boxes import BUCKETS, bucket, from_table, side_length
from etl.snapshots.answer import ClassChanges, Difference, SnapshotChange
from etl.snapshots.box_pairs import BoxPairs, pair_boxes
from etl.snapshots.class_changes import Labels, compare_classes
from etl.snapshots.snapshot import Snapshot

Counts = dict[str, dict[str, int]]


def diff(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the answer of `speck diff`: numbers of added, removed and changed images, and of source boxes by class
    and size; the share of boxes that changed, and which class became which.

    An image is changed if its bytes are; a box if its coordinates, category or flags are. A changed box is counted with
    its new class and size.
    """
    old, new = Labels.of(before), Labels.of(after)
    pairs = pair_boxes(old.annotations, new.annotations)
    return {
        "images": _images(before.table("images"), after.table("images")),
        "boxes": _boxes(old.annotations, new.annotations, pairs),
        "share": pairs.share,
        "classes": compare_classes(old, new, pairs).to_dict(),
    }


def measure_change(
    previous: Snapshot | None, images: pa.Table, boxes: int, read: Callable[[], Labels]
) -> SnapshotChange:
    """Return the difference of new tables from a snapshot; without one, everything is new.

    `boxes` is the number of new boxes; `read` returns them where there is a snapshot.
    """
    if previous is None:
        return SnapshotChange(
            images=Difference(added=images.num_rows, removed=0),
            boxes=Difference(added=boxes, removed=0),
            share=1.0,
            classes=ClassChanges(source=(), trained=(), renumbered=()),
        )
    before, labels = Labels.of(previous), read()
    pairs = pair_boxes(before.annotations, labels.annotations)
    return SnapshotChange(
        images=_difference(previous.table("images"), images, "image_id"),
        boxes=_difference(before.annotations, labels.annotations, "annotation_id"),
        share=pairs.share,
        classes=compare_classes(before, labels, pairs),
    )


def _difference(before: pa.Table, after: pa.Table, key: str) -> Difference:
    old, new = (set(table[key].to_pylist()) for table in (before, after))
    return Difference(added=len(new - old), removed=len(old - new))


def _images(before: pa.Table, after: pa.Table) -> dict[str, int]:
    old, new = (
        dict(zip(table["image_id"].to_pylist(), table["sha256"].to_pylist(), strict=True)) for table in (before, after)
    )
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}


def _boxes(before: pa.Table, after: pa.Table, pairs: BoxPairs) -> dict[str, Counts]:
    return {
        "added": _counts(after.take(pairs.added)),
        "removed": _counts(before.take(pairs.removed)),
        "changed": _counts(after.take(pairs.after[pairs.changed])),
    }


def _counts(boxes: pa.Table) -> Counts:
    counts: Counts = {}
    sizes = bucket(side_length(from_table(boxes)))
    for category, size in zip(boxes["category"].to_pylist(), sizes, strict=True):
        by_size = counts.setdefault(category, dict.fromkeys(BUCKETS, 0))
        by_size[BUCKETS[size]] += 1
    return {name: counts[name] for name in sorted(counts)}
