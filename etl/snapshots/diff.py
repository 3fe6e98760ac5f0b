"""Compare two snapshots: changed images, changed boxes by class and size, and changed classes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import BUCKETS, bucket, from_table, side_length
from etl.snapshots.answer import ClassChanges, Difference, SnapshotChange
from etl.snapshots.box_pairs import BoxPairs, share_of
from etl.snapshots.class_changes import ClassCounts, Labels, compare_classes, labelled_names, pair_labels
from etl.snapshots.snapshot import Snapshot

Counts = dict[str, dict[str, int]]


def diff(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """Return the answer of `speck diff`: numbers of added, removed and changed images, and of source boxes by class
    and size; the share of boxes that changed, and which class became which.

    An image is changed if its bytes are; a box if its coordinates, category or flags are. A changed box is counted with
    its new class and size.
    """
    old, new = Labels.of(before), Labels.of(after)
    change = _Change()
    boxes: dict[str, Counts] = {"added": {}, "removed": {}, "changed": {}}
    for earlier, later, pairs in pair_labels(old, new):
        change.add(earlier, later, pairs)
        _count(earlier.take(pairs.removed), boxes["removed"])
        _count(later.take(pairs.added), boxes["added"])
        _count(later.take(pairs.after[pairs.changed]), boxes["changed"])
    return {
        "images": _images(before.table("images"), after.table("images")),
        "boxes": {kind: {name: counts[name] for name in sorted(counts)} for kind, counts in boxes.items()},
        "share": change.share,
        "classes": compare_classes(old, new, change.classes).to_dict(),
    }


class _Change:
    """The change of the boxes between two snapshots, added image by image."""

    def __init__(self) -> None:
        self.classes = ClassCounts()
        self.added = self.removed = 0  # ids
        self._changes = self._boxes = 0

    @property
    def share(self) -> float:
        """The changes divided by the boxes of the first snapshot, as `BoxPairs.share`."""
        return share_of(self._changes, self._boxes)

    def add(self, old: pa.Table, new: pa.Table, pairs: BoxPairs) -> None:
        self.classes.add(labelled_names(old), labelled_names(new), pairs)
        self.added += _count_others(new["annotation_id"], old["annotation_id"])
        self.removed += _count_others(old["annotation_id"], new["annotation_id"])
        self._changes += pairs.changes
        self._boxes += old.num_rows


def _count_others(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> int:
    """Return the number of distinct ids that are not known."""
    return int(pc.sum(pc.invert(pc.is_in(pc.unique(ids), known.combine_chunks()))).as_py() or 0)


def measure_change(previous: Snapshot | None, images: pa.Table, after: Labels) -> SnapshotChange:
    """Return the difference of new images and labels from a snapshot; without one, everything is new."""
    if previous is None:
        return SnapshotChange(
            images=Difference(added=images.num_rows, removed=0),
            boxes=Difference(added=after.rows, removed=0),
            share=1.0,
            classes=ClassChanges(source=(), trained=(), renumbered=()),
        )
    before, change = Labels.of(previous), _Change()
    for old, new, pairs in pair_labels(before, after):
        change.add(old, new, pairs)
    earlier, later = previous.table("images")["image_id"], images["image_id"]
    return SnapshotChange(
        images=Difference(added=_count_others(later, earlier), removed=_count_others(earlier, later)),
        boxes=Difference(added=change.added, removed=change.removed),
        share=change.share,
        classes=compare_classes(before, after, change.classes),
    )


def _images(before: pa.Table, after: pa.Table) -> dict[str, int]:
    old, new = (
        dict(zip(table["image_id"].to_pylist(), table["sha256"].to_pylist(), strict=True)) for table in (before, after)
    )
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}


def _count(boxes: pa.Table, counts: Counts) -> None:
    """Add boxes to the counts by class and size."""
    sizes = bucket(side_length(from_table(boxes)))
    for category, size in zip(boxes["category"].to_pylist(), sizes, strict=True):
        counts.setdefault(category, dict.fromkeys(BUCKETS, 0))[BUCKETS[size]] += 1
