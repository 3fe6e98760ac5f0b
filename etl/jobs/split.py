"""Assign each image to a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import region, schema
from etl.boxes import XYXY, corners
from etl.config import SplitRatios
from etl.jobs import split_check
from etl.jobs.remap import trained_boxes
from etl.plan import Plan
from etl.stages.ledger import LedgerRow, ledger_row
from etl.stages.split import SplitPins, SplitResult, assign_splits
from etl.storage import store
from etl.storage.work import Answer, WorkDir

_COUNTED = ("image_id", "category", *XYXY, "crowd", "ignore", "difficult", "area")  # of the boxes


def run(uri: str) -> Answer:
    """Assign each image to a split, and drop the boxes that no split can use."""
    work = WorkDir(uri)

    def compute() -> Answer:
        source = work.config.source
        result = assign_splits(
            work.read("ingest", "images"),
            source.split if isinstance(source.split, SplitRatios) else None,
            group=source.group,
            pins=_pins(work.pinned_plan),
            predefined=work.build["own_split"],
            read_boxes=partial(trained_boxes, work, _COUNTED, ["ingest"]),
            metric=work.config.gate.metric,
        )
        work.write("split", "images", result.images)
        work.write("split", "ledger", schema.table(schema.LEDGER, _drop_unused(work, result)))
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


def _drop_unused(work: WorkDir, result: SplitResult) -> list[LedgerRow]:
    """Return the rows of the boxes that no split uses: of left out images, then of guard bands."""
    held_out, images = work.config.source.held_out, result.images
    divided = {row["image_id"]: row for row in images.filter(pc.equal(images["split"], schema.DIVIDED)).to_pylist()}
    wanted = pa.array([*result.left_out, *divided], pa.string())
    left_out, outside = [], []
    for piece in work.usable_annotations("ingest", columns=["annotation_id", "image_id", *XYXY]):
        for box in piece.filter(pc.is_in(piece["image_id"], wanted)).to_pylist():
            name, image = box["annotation_id"], box["image_id"]
            if image in result.left_out:
                left_out.append(ledger_row(name, "split", "dropped", result.left_out[image]))
            if image in divided and _is_outside(box, region.regions_of(divided[image], held_out)):
                outside.append(ledger_row(name, "split", "dropped", "guard_band"))
    return [*left_out, *outside]


def _is_outside(box: Mapping[str, Any], regions: Iterable[region.Region]) -> bool:
    """Return whether a box lies outside every region."""
    x0, y0, x1, y1 = corners(box)
    return not any(x0 < window.x1 and window.x0 < x1 and y0 < window.y1 and window.y0 < y1 for _, window in regions)
