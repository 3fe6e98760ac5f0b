"""The ground truth for evaluation: the images of a split, or all images, and their boxes, in source pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, region
from etl.config import Config
from etl.plan import Window
from etl.snapshots.snapshot import Snapshot
from etl.stages import remap

IMAGE_COLUMNS = ("image_id", "path", "sha256", "width", "height", "exif_orientation", *Window._fields)
ALL = "all"  # in place of a split: every image, whole


def load_ground_truth(snapshot: Snapshot, split: str = "val") -> tuple[pa.Table, pa.Table]:
    """Return the images of a split, or of `all`, and the boxes to detect in them.

    Images are sorted by path, with the EXIF orientation to decode them with and the window x0 y0 x1 y1 that belongs to
    the split, usually the whole image. Boxes have the categories of the ontology and are clipped to their window, in
    its pixels; `area` is that of the label file. Evaluation ignores `ignore` and `difficult` boxes; `ignore` also marks
    a box whose share in the window is below the plan's min_visibility. Boxes that no tile labels are included.
    """
    images = snapshot.table("images").sort_by("path")
    if split != ALL:
        splits = region.splits_in(split, snapshot.config.source.held_out)
        images = images.filter(pc.is_in(images["split"], pa.array(splits)))
    images = _add_windows(images, split, snapshot.config)
    orientation = pc.if_else(images["exif_applied"], images["exif_orientation"], pa.scalar(1, pa.int8()))
    images = images.set_column(images.schema.get_field_index("exif_orientation"), "exif_orientation", orientation)
    ledger = snapshot.table("ledger")
    stages = ["ingest"] if split == ALL else ["ingest", "split"]  # the split drops boxes of no split
    is_dropped = pc.and_(pc.equal(ledger["outcome"], "dropped"), pc.is_in(ledger["stage"], pa.array(stages)))
    annotations = snapshot.table("annotations")
    unusable = pc.is_in(annotations["annotation_id"], ledger.filter(is_dropped)["annotation_id"].combine_chunks())
    in_split = pc.is_in(annotations["image_id"], images["image_id"].combine_chunks())
    remapped, _ = remap.remap_boxes(
        annotations.filter(pc.and_(in_split, pc.invert(unusable))), snapshot.plan.categories, snapshot.config.ontology
    )
    truth = pa.table(
        {
            **{name: remapped[name] for name in ("annotation_id", "image_id", "category", "area")},
            **_clip_to_windows(remapped, images, snapshot.plan.tile.min_visibility),
            "difficult": pc.greater(remapped["difficult"], 0),
        }
    )
    return images.select(IMAGE_COLUMNS), truth


def load_source_boxes(snapshot: Snapshot, images: pa.Table) -> pa.Table:
    """Return the boxes of images (of `load_ground_truth`) as the label files have them, in pixels of the window.

    Boxes are neither clipped nor left out for their size, their place or a flag but `crowd`; only the classes are those
    of the ontology. A box belongs to a window that is not the whole image if its centre lies there.
    """
    annotations = snapshot.table("annotations")
    row = pc.index_in(annotations["image_id"], images["image_id"].combine_chunks())
    trained = remap.trained_names(snapshot.plan.categories, snapshot.config.ontology)
    category = pa.array([trained.get(name) for name in annotations["category"].to_pylist()], pa.string())
    xyxy = boxes.from_table(annotations)
    usable = pc.and_(pc.is_valid(row), pc.and_(pc.is_valid(category), pa.array(np.isfinite(xyxy).all(axis=1))))
    annotations, row, category = (part.filter(usable) for part in (annotations, row, category))
    xyxy = boxes.from_table(annotations)
    x0, y0, x1, y1, width, height = (images[side].take(row).to_numpy() for side in (*Window._fields, "width", "height"))
    x, y = (xyxy[:, 0] + xyxy[:, 2]) / 2, (xyxy[:, 1] + xyxy[:, 3]) / 2
    whole = (x1 - x0 == width) & (y1 - y0 == height)
    inside = pa.array(whole | ((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)))
    corners = dict(zip(boxes.XYXY, (xyxy - np.column_stack([x0, y0] * 2)).T, strict=True))
    names = {name: annotations[name] for name in ("image_id", "area", "crowd")}
    return pa.table({**names, "category": category, **corners}).filter(inside)


def _add_windows(images: pa.Table, split: str, config: Config) -> pa.Table:
    """Return the images with the window of each that belongs to a split, the whole image for `all`."""
    windows = [
        region.whole(row) if split == ALL else region.window_of(row, split, config.source.held_out)
        for row in images.to_pylist()
    ]
    for name in Window._fields:
        images = images.append_column(name, pa.array([getattr(window, name) for window in windows], pa.int32()))
    return images


def _clip_to_windows(annotations: pa.Table, images: pa.Table, min_visibility: float) -> dict[str, np.ndarray]:
    """Return the boxes clipped to their windows, with `ignore` also set if too little of a box is in its window."""
    row = pc.index_in(annotations["image_id"], images["image_id"].combine_chunks())
    width, height = (images[side].take(row).to_numpy() for side in ("width", "height"))
    x0, y0, x1, y1 = (images[side].take(row).to_numpy() for side in Window._fields)
    xyxy = boxes.from_table(annotations)
    inside = boxes.clip(xyxy, (np.zeros_like(width), np.zeros_like(width), width, height))
    visible = boxes.clip(inside, (x0, y0, x1, y1))
    too_small = boxes.area(visible) < min_visibility * boxes.area(inside)
    corners = visible - np.column_stack([x0, y0] * 2)
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool) | too_small
    return dict(zip((*boxes.XYXY, "ignore"), (*corners.T, ignore), strict=True))
