"""Pair the boxes of two snapshots by object, and measure the share of boxes that changed."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import XYXY, from_table, iou
from etl.schema import ANNOTATIONS, LEDGER
from etl.snapshots.snapshot import Snapshot
from etl.stages.review import without_removed
from etl.storage.buckets import MOST, Buckets, bucket_of

SAME_OBJECT = 0.5  # IoU from which a removed and an added box are one object that was moved or relabelled
_BOXES_AT_ONCE = 100_000  # about: boxes of a table that are paired at once
_COMPARED = ("category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")
COLUMNS = ("annotation_id", "image_id", *_COMPARED)  # of annotations, that decide about pairs and changes
_COLUMNS = pa.schema([ANNOTATIONS.field(name) for name in COLUMNS])

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
        return share_of(self.changes, len(self.before) + len(self.removed))


def share_of(changes: int, boxes: int) -> float:
    """Return the changes divided by the boxes before them, at most 1; 1 if there were none."""
    return round(min(1.0, changes / max(1, boxes)), 6)


def labelled_boxes(snapshot: Snapshot) -> pa.Table:
    """Return the boxes of a snapshot that are compared with another's: all labels but those that a review removed."""
    return pa.concat_tables([_COLUMNS.empty_table(), *read_labels(snapshot)])


def read_labels(snapshot: Snapshot) -> Iterator[pa.Table]:
    """Yield the boxes of a snapshot that are compared with another's, piece by piece."""
    yield from labels_in(snapshot.pieces("annotations", COLUMNS), snapshot.pieces("ledger", ["annotation_id", "rule"]))


def labels_in(annotations: Iterable[pa.Table], ledger: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield all labels but those that a review removed, of tables that come in pieces."""
    events = [piece.filter(pc.starts_with(piece["rule"], "review:")) for piece in ledger]
    reviewed = pa.concat_tables([LEDGER.empty_table().select(["annotation_id", "rule"]), *events])
    for piece in annotations:
        yield without_removed(piece, reviewed)


def pair_pieces(
    before: Iterable[pa.Table], after: Iterable[pa.Table], boxes: int
) -> Iterator[tuple[pa.Table, pa.Table, BoxPairs]]:
    """Yield the boxes of some images in two tables that come in pieces, and their pairs, until all images are compared.

    `boxes` is about the number of boxes of a table.
    """
    count = min(boxes // _BOXES_AT_ONCE + 1, MOST)
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        sides = []
        for name, pieces in (("before", before), ("after", after)):
            buckets = Buckets(Path(folder) / name, _COLUMNS, count)
            for piece in pieces:
                buckets.add(piece.select(COLUMNS), bucket_of(piece["image_id"], count))
            sides.append(buckets.read())
        for old, new in zip(*sides, strict=True):
            yield old, new, pair_boxes(old, new)


def changed_share(before: pa.Table, after: pa.Table) -> float:
    """Return the share of boxes that changed between two tables of annotations, 0 to 1."""
    return pair_boxes(before, after).share


def pair_boxes(before: pa.Table, after: pa.Table) -> BoxPairs:
    """Return the pairs of two tables of annotations: boxes of one id, then those that overlap, highest IoU first."""
    old, new = (table.select(COLUMNS) for table in (before, after))
    removed, added = np.arange(old.num_rows), np.arange(new.num_rows)
    pairs = []
    for find_pairs in (_pairs_by_id, _pairs_in_place, _pairs_by_overlap):
        first, second = find_pairs(old.take(removed), new.take(added))
        pairs.append((removed[first], added[second]))
        removed, added = np.delete(removed, first), np.delete(added, second)
    first, second = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    changed = _differ(old.take(first), new.take(second))
    replaced = _count_replaced(old["image_id"].take(removed), new["image_id"].take(added))
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


def _pairs_by_id(before: pa.Table, after: pa.Table) -> tuple[Rows, Rows]:
    return _equal_keys(before["annotation_id"], after["annotation_id"])


def _pairs_in_place(before: pa.Table, after: pa.Table) -> tuple[Rows, Rows]:
    """Return the pairs of boxes with the same coordinates in one image, where it has only one such box."""
    keys = (
        pc.binary_join_element_wise(table["image_id"], *(table[side].cast(pa.string()) for side in XYXY), " ")
        for table in (before, after)
    )
    return _equal_keys(*keys)


def _equal_keys(before: pa.ChunkedArray, after: pa.ChunkedArray) -> tuple[Rows, Rows]:
    """Return the rows of the keys that occur once in each column."""
    rows, others = _unique_rows(before), _unique_rows(after)
    keys = after.take(others).combine_chunks()
    place = pc.fill_null(pc.index_in(before.take(rows), keys), -1).to_numpy()
    return rows[place >= 0], others[place[place >= 0]]


def _unique_rows(keys: pa.ChunkedArray) -> Rows:
    """Return the rows whose key is not null and occurs once."""
    counts = pc.value_counts(keys)
    once = counts.field("values").filter(pc.equal(counts.field("counts"), 1)).drop_null()
    return np.flatnonzero(pc.is_in(keys, once).to_numpy())


def _pairs_by_overlap(before: pa.Table, after: pa.Table) -> tuple[Rows, Rows]:
    old, new = _rows_by_image(before), _rows_by_image(after)
    old_boxes, new_boxes = from_table(before), from_table(after)
    pairs: list[tuple[int, int]] = []
    for image in sorted(old.keys() & new.keys()):
        rows, others = old[image], new[image]
        pairs += [(rows[row], others[other]) for row, other in _greedy_pairs(iou(old_boxes[rows], new_boxes[others]))]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return first, second


def _rows_by_image(annotations: pa.Table) -> dict[str, Rows]:
    """Return the rows of each image, in the order of their ids."""
    if not annotations.num_rows:
        return {}
    keys = [("image_id", "ascending"), ("annotation_id", "ascending")]
    order = pc.sort_indices(annotations, sort_keys=keys).to_numpy()
    images = annotations["image_id"].to_numpy()[order]
    starts = np.flatnonzero(images[1:] != images[:-1]) + 1
    return {images[start]: rows for start, rows in zip([0, *starts], np.split(order, starts), strict=True)}


def _greedy_pairs(overlap: NDArray[np.float64]) -> Iterable[tuple[int, int]]:
    """Return the row and column of each pair: highest IoU first, each row and column once."""
    pairs: dict[int, int] = {}
    paired: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = (int(number) for number in np.unravel_index(place, overlap.shape))
        if not overlap[row, column] >= SAME_OBJECT:  # also NaN
            break
        if row not in pairs and column not in paired:
            pairs[row] = column
            paired.add(column)
    return pairs.items()
