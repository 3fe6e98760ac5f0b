"""Pair the boxes of two snapshots by object, and measure the share of boxes that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import XYXY, from_table, iou

SAME_OBJECT = 0.5  # IoU from which a removed and an added box are one object that was moved or relabelled
_COMPARED = ("category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class BoxPairs:
    """Rows of the boxes in two tables of annotations: those of one object in both, and those in one table only."""

    before: Rows  # [P]
    after: Rows  # [P] the same objects
    changed: NDArray[np.bool_]  # [P] whether coordinates, class or flags differ
    removed: Rows  # only in the first table
    added: Rows  # only in the second
    changes: int  # boxes changed, added or removed; one added and one removed in one image are one change

    @property
    def share(self) -> float:
        """The changes divided by the boxes of the first table, at most 1; 1 if only the second table has boxes."""
        return round(min(1.0, self.changes / max(1, len(self.before) + len(self.removed))), 6)


def changed_share(before: pa.Table, after: pa.Table) -> float:
    """Return the share of boxes that changed between two tables of annotations, 0 to 1."""
    return pair_boxes(before, after).share


def pair_boxes(before: pa.Table, after: pa.Table) -> BoxPairs:
    """Return the pairs of two tables of annotations: boxes of one id, then those that overlap, highest IoU first."""
    place = pc.index_in(before["annotation_id"], after["annotation_id"].combine_chunks()).to_numpy()  # NaN: not there
    rows = np.flatnonzero(~np.isnan(place))
    pairs = [np.stack([rows, place[rows].astype(np.int64)])]
    only_before = np.delete(np.arange(before.num_rows), pairs[0][0])
    only_after = np.delete(np.arange(after.num_rows), pairs[0][1])
    pairs += _pairs_by_overlap(before, only_before, after, only_after)
    first, second = np.concatenate(pairs, axis=1)
    removed = np.setdiff1d(only_before, first, assume_unique=True)
    added = np.setdiff1d(only_after, second, assume_unique=True)
    changed = _differ(before.take(first), after.take(second))
    replaced = _count_replaced(before["image_id"].take(removed), after["image_id"].take(added))
    return BoxPairs(first, second, changed, removed, added, int(changed.sum()) + replaced)


def _differ(before: pa.Table, after: pa.Table) -> NDArray[np.bool_]:
    differ = np.zeros(before.num_rows, dtype=bool)
    for name in _COMPARED:
        old, new = before[name], after[name]
        differ |= pc.fill_null(pc.not_equal(old, new), False).to_numpy()
        differ |= pc.xor(pc.is_null(old), pc.is_null(new)).to_numpy()
    return differ


def _count_replaced(removed: pa.ChunkedArray, added: pa.ChunkedArray) -> int:
    """Return the larger number of removed and of added boxes, summed over the images of both."""
    old, new = Counter(removed.to_pylist()), Counter(added.to_pylist())
    return (old | new).total()


def _pairs_by_overlap(before: pa.Table, rows: Rows, after: pa.Table, others: Rows) -> Iterator[Rows]:
    """Yield the pairs [2, P] of each image among these rows of the two tables."""
    old, new = _rows_by_image(before, rows), _rows_by_image(after, others)
    old_boxes, new_boxes = from_table(before), from_table(after)
    for image in sorted(old.keys() & new.keys()):
        first, second = _greedy_pairs(iou(old_boxes[old[image]], new_boxes[new[image]]))
        yield np.stack([old[image][first], new[image][second]])


def _rows_by_image(annotations: pa.Table, rows: Rows) -> dict[str, Rows]:
    """Return these rows of each image, in the order of their ids."""
    if not len(rows):
        return {}
    ids = annotations.select(["image_id", "annotation_id"]).take(rows)
    order = pc.sort_indices(ids, sort_keys=[("image_id", "ascending"), ("annotation_id", "ascending")]).to_numpy()
    images = ids["image_id"].to_numpy()[order]
    starts = np.flatnonzero(images[1:] != images[:-1]) + 1
    return {images[start]: part for start, part in zip([0, *starts], np.split(rows[order], starts), strict=True)}


def _greedy_pairs(overlap: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Return the rows and columns of the pairs: highest IoU first, each row and column once."""
    pairs: dict[int, int] = {}
    paired: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = (int(number) for number in np.unravel_index(place, overlap.shape))
        if not overlap[row, column] >= SAME_OBJECT:  # also NaN
            break
        if row not in pairs and column not in paired:
            pairs[row] = column
            paired.add(column)
    return list(pairs), list(pairs.values())
