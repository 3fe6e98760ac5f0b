"""What a detector is judged against: the images of a split and the boxes they truly hold, in source pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, region, schema
from etl.config import Config
from etl.plan import Window
from etl.snapshots.snapshot import Snapshot
from etl.stages import remap

IMAGE_COLUMNS = ("image_id", "path", "width", "height", "exif_orientation", *Window._fields)


def load_ground_truth(snapshot: Snapshot, split: str = "val") -> tuple[pa.Table, pa.Table]:
    """Return the split's images and the boxes to find in them.

    Images by path, with the orientation to decode them with, and the window x0 y0 x1 y1 of each that belongs to the
    split: of most the whole. Boxes under the names the ontology gives them, clipped to their window and in its pixels,
    with `area` as the label file has it; `ignore` boxes and `difficult` ones are to be passed over, and those that lie
    in the window by less than the plan's min_visibility. Boxes
    that no tile labels are truth as well: they are in the image.
    """
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["split"], pa.array([split, schema.DIVIDED]))).sort_by("path")
    images = _windows(images, split, snapshot.config)
    turn = pc.if_else(images["exif_applied"], images["exif_orientation"], pa.scalar(1, pa.int8()))
    images = images.set_column(images.schema.get_field_index("exif_orientation"), "exif_orientation", turn)
    ledger = snapshot.table("ledger")
    gone = pc.and_(pc.equal(ledger["outcome"], "dropped"), pc.is_in(ledger["stage"], pa.array(["ingest", "split"])))
    annotations = snapshot.table("annotations")
    unusable = pc.is_in(annotations["annotation_id"], ledger.filter(gone)["annotation_id"].combine_chunks())
    here = pc.is_in(annotations["image_id"], images["image_id"].combine_chunks())
    found, _ = remap.remap_boxes(
        annotations.filter(pc.and_(here, pc.invert(unusable))), snapshot.plan.categories, snapshot.config.ontology
    )
    truth = pa.table(
        {
            **{name: found[name] for name in ("annotation_id", "image_id", "category", "area")},
            **_clipped(found, images, snapshot.plan.tile.min_visibility),
            "difficult": pc.greater(found["difficult"], 0),
        }
    )
    return images.select(IMAGE_COLUMNS), truth


def _windows(images: pa.Table, split: str, config: Config) -> pa.Table:
    """Return the images with the part of each that belongs to a split."""
    windows = [region.window_of(row, split, config.source.held_out) for row in images.to_pylist()]
    for name in Window._fields:
        images = images.append_column(name, pa.array([getattr(window, name) for window in windows], pa.int32()))
    return images


def _clipped(annotations: pa.Table, images: pa.Table, min_visibility: float) -> dict[str, np.ndarray]:
    """Return the boxes in their windows, and which are to be passed over: too little of them lies in the window."""
    place = pc.index_in(annotations["image_id"], images["image_id"].combine_chunks())
    width, height = (images[side].take(place).to_numpy() for side in ("width", "height"))
    x0, y0, x1, y1 = (images[side].take(place).to_numpy() for side in Window._fields)
    xyxy = boxes.from_table(annotations)
    inside = boxes.clip(xyxy, (np.zeros_like(width), np.zeros_like(width), width, height))
    shown = boxes.clip(inside, (x0, y0, x1, y1))
    cut = boxes.area(shown) < min_visibility * boxes.area(inside)
    corners = shown - np.column_stack([x0, y0] * 2)
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool) | cut
    return dict(zip((*boxes.XYXY, "ignore"), (*corners.T, ignore), strict=True))
