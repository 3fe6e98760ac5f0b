"""Report the classes of a source that are not in its class list, and which of them probably are renamed ones."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.findings import Finding, finding
from etl.snapshots import snapshot
from etl.snapshots.class_changes import find_renamed
from etl.stages.class_list import UnknownClass, count_unknown, explain_unknown


def report_unknown_classes(config: Config, tables: Mapping[str, pa.Table], *, pinned: bool) -> list[Finding]:
    """Return a finding that names the unknown classes of an ingest and the cure; none if all classes are known.

    `pinned` tells whether the class list is that of the pinned plan.
    """
    rejects = tables["rejects"].filter(pc.equal(tables["rejects"]["reason"], "unknown_category"))
    if not rejects.num_rows:
        return []
    renamed = _find_renamed(config, tables["annotations"])
    classes = [UnknownClass(name, boxes, *renamed.get(name, ())) for name, boxes in count_unknown(rejects).items()]
    advice = explain_unknown(classes, pinned=pinned)
    return [finding("unknown_category", advice, sorted(set(rejects["where"].to_pylist())), count=rejects.num_rows)]


def _find_renamed(config: Config, annotations: pa.Table) -> dict[str, tuple[str, int]]:
    """Return the old name of each class renamed since the newest snapshot, and the number of boxes it had."""
    newest = snapshot.head(config)
    before = None if newest is None else snapshot.Snapshot.open(newest).table("annotations")
    return {} if before is None else find_renamed(before, annotations)
