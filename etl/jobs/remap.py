"""Apply the ontology to the boxes of a build."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from etl.stages.remap import CategoryPreview, preview_categories, remap_boxes
from etl.storage.work import Answer, WorkDir


def run(uri: str) -> Answer:
    """Apply the ontology to the boxes that ingest and split have not dropped."""
    work = WorkDir(uri)

    def compute() -> Answer:
        kept, ledger = apply_ontology(work)
        work.write("remap", "annotations", kept)
        work.write("remap", "ledger", ledger)
        return {"annotations": kept.num_rows, "changed": ledger.num_rows}

    return work.run_once("remap", compute)


def apply_ontology(work: WorkDir) -> tuple[pa.Table, pa.Table]:
    """Return what `remap_boxes` does of the boxes that ingest and split have not dropped."""
    return remap_boxes(work.usable_annotations("ingest", "split"), work.categories, work.config.ontology)


def preview_ontology(work: WorkDir) -> tuple[CategoryPreview, ...]:
    """Return what ontology and split make of the valid boxes of each class."""
    boxes, left_out = work.usable_annotations("ingest"), work.dropped_ids("split")
    return preview_categories(boxes, work.categories, work.config.ontology, left_out)


def count_untrained(work: WorkDir, remapped: pa.Table) -> dict[str, int]:
    """Return how many boxes are no objects, by the rule that takes them, most first.

    `remapped` is the ledger of the ontology.
    """
    ledgers = pa.concat_tables([work.read("ingest", "ledger"), work.read("split", "ledger"), remapped])
    taken = ledgers.filter(pc.is_in(ledgers["outcome"], pa.array(["dropped", "ignored"])))
    return dict(Counter(taken["rule"].to_pylist()).most_common())
