"""Report the classes of a source that are not in its class list, and which of them probably are renamed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.findings import Finding, finding
from etl.snapshots.answer import ClassChanges
from etl.snapshots.box_pairs import COLUMNS
from etl.snapshots.change_text import describe_exchanged
from etl.snapshots.class_changes import compare_labels
from etl.snapshots.intact import newest_intact
from etl.stages.class_list import UnknownClass, count_unknown, explain_unknown


def report_unknown_classes(
    config: Config, rejects: pa.Table, read: Callable[[Sequence[str]], pa.Table], *, pinned: bool
) -> list[Finding]:
    """Return a finding that names the unknown classes of an ingest and the cure; none if all classes are known.

    `read` returns columns of its annotations; `pinned` is true if the class list is that of the pinned plan.
    """
    rejects = rejects.filter(pc.equal(rejects["reason"], "unknown_category"))
    if not rejects.num_rows:
        return []
    annotations = read(COLUMNS)
    changes = _compare_with_newest(config, annotations)
    exchanged = describe_exchanged(changes)
    renamed = {} if exchanged else _find_renamed(changes, annotations)
    classes = [UnknownClass(name, boxes, *renamed.get(name, ())) for name, boxes in count_unknown(rejects).items()]
    advice = explain_unknown(classes, pinned=pinned)
    advice = f"{exchanged}. {advice}" if exchanged else advice
    places = pc.unique(rejects["where"]).sort().to_pylist()
    return [finding("unknown_category", advice, places, count=rejects.num_rows)]


def _compare_with_newest(config: Config, annotations: pa.Table) -> ClassChanges:
    """Return the changes of the classes since the newest snapshot, none before the first."""
    newest = newest_intact(config, ("annotations",))
    if newest is None:
        return ClassChanges()
    before = pa.concat_tables(piece.select(COLUMNS) for piece in newest.pieces("annotations"))
    return compare_labels(before, annotations)


def _find_renamed(changes: ClassChanges, annotations: pa.Table) -> dict[str, tuple[str, int]]:
    """Return, by its new name, the old name of each class that has no box now, and the number of boxes it had.

    Half of the boxes of the old class must have the new one.
    """
    now = set(pc.unique(annotations["category"]).to_pylist())
    return {
        row.after: (row.before, row.of)
        for row in changes.source
        if row.before is not None and row.after is not None and row.before not in now and 2 * row.boxes >= row.of
    }
