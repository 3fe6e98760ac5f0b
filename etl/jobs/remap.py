"""Apply the ontology to the boxes of a build."""

from __future__ import annotations

from etl.stages.remap import remap_boxes
from etl.storage.work import Answer, WorkDir


def run(uri: str) -> Answer:
    """Apply the ontology to the boxes that ingest and split have not dropped."""
    work = WorkDir(uri)

    def compute() -> Answer:
        kept, ledger = remap_boxes(work.usable_annotations("ingest", "split"), work.categories, work.config.ontology)
        work.write("remap", "annotations", kept)
        work.write("remap", "ledger", ledger)
        return {"annotations": kept.num_rows, "changed": ledger.num_rows}

    return work.run_once("remap", compute)
