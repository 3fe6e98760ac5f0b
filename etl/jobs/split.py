"""Assign each image to a split."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from etl import region, schema
from etl.boxes import corners
from etl.config import SplitRatios
from etl.jobs import split_check
from etl.plan import Plan
from etl.stages.ledger import ledger_row
from etl.stages.remap import remap_boxes
from etl.stages.split import SplitPins, assign_splits
from etl.storage import store
from etl.storage.work import Answer, WorkDir


def run(uri: str) -> Answer:
    """Assign each image to a split, and drop the boxes that no split can use."""
    work = WorkDir(uri)

    def compute() -> Answer:
        source = work.config.source
        boxes = work.usable_annotations("ingest")
        trained, _ = remap_boxes(boxes, work.categories, work.config.ontology)
        result = assign_splits(
            work.read("ingest", "images"),
            source.split if isinstance(source.split, SplitRatios) else None,
            group=source.group,
            pins=_pins(work.pinned_plan),
            predefined=work.build["own_split"],
            boxes=trained,
            metric=work.config.gate.metric,
        )
        unused = boxes.filter(pc.is_in(boxes["image_id"], pa.array(result.left_out, pa.string())))
        rows = [
            ledger_row(box, "split", "dropped", result.left_out[image])
            for box, image in zip(unused["annotation_id"].to_pylist(), unused["image_id"].to_pylist(), strict=True)
        ]
        rows += [
            ledger_row(box, "split", "dropped", "guard_band") for box in _guard_band_boxes(work, result.images, boxes)
        ]
        work.write("split", "images", result.images)
        work.write("split", "ledger", schema.table(schema.LEDGER, rows))
        store.write_json(work.path("split", "report.json"), result.report.to_dict())
        findings = split_check.check(work, result)
        pins = {
            "split_salt": result.salt,
            "near_duplicates": result.near_duplicates,
            "divided": result.divided,
            "grouping": None if result.grouping is None else result.grouping.model_dump(mode="json"),
            "findings": [row.to_dict() for row in findings],
        }
        store.write_json(work.path("split", "pins.json"), pins)
        counts = Counter(result.images["split"].to_pylist())
        return {"images": dict(sorted(counts.items())), "findings": len(findings)}

    return work.run_once("split", compute)


def _pins(plan: Plan | None) -> SplitPins | None:
    return None if plan is None else SplitPins(plan.split_salt, plan.near_duplicates, plan.divided, plan.grouping)


def _guard_band_boxes(work: WorkDir, images: pa.Table, boxes: pa.Table) -> list[str]:
    """Return the ids of the boxes on divided images that lie outside every region."""
    held_out = work.config.source.held_out
    divided = {row["image_id"]: row for row in images.filter(pc.equal(images["split"], schema.DIVIDED)).to_pylist()}
    outside = []
    for box in boxes.filter(pc.is_in(boxes["image_id"], pa.array([*divided], pa.string()))).to_pylist():
        x0, y0, x1, y1 = corners(box)
        windows = (part.window for part in region.regions_of(divided[box["image_id"]], held_out))
        if not any(x0 < w.x1 and w.x0 < x1 and y0 < w.y1 and w.y0 < y1 for w in windows):
            outside.append(box["annotation_id"])
    return outside
