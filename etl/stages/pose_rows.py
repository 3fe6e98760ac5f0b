"""Reject YOLO pose rows that were read as polygons, because nothing says how many keypoints they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.formats import keypoints
from etl.stages.ingest import add_drops, is_dropped


def reject_pose_rows(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables with every polygon rejected and removed whose number of points is that of pose rows.

    A box that was already rejected keeps its first reason.
    """
    annotations = tables["annotations"]
    lengths = pc.list_value_length(annotations["polygon"])
    for length in sorted(value for value in pc.unique(lengths).to_pylist() if value is not None):
        rows = annotations.filter(pc.equal(lengths, length))
        normalised = _normalise(rows, tables["images"], length)
        if (form := keypoints.find_form(normalised)) is not None:
            usable = pc.invert(is_dropped(tables | {"annotations": rows}))
            found = [keypoints.describe(row) for row in normalised[usable.to_numpy()].tolist()]
            rows = rows.filter(usable)
            tables = add_drops(tables, rows, "pose_row", found, form.expected)
            kept = pc.invert(pc.is_in(tables["annotations"]["annotation_id"], rows["annotation_id"].combine_chunks()))
            tables["annotations"] = tables["annotations"].filter(kept)
    return tables


def _normalise(rows: pa.Table, images: pa.Table, length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the polygons [N, length] in shares of their image's width and height, as they stand in the file."""
    owner = pc.index_in(rows["image_id"], value_set=images["image_id"].combine_chunks())
    sides = [images[side].take(owner).to_numpy().astype(np.float64) for side in ("width", "height")]
    polygons = pc.list_flatten(rows["polygon"]).to_numpy().reshape(-1, length)
    shares: np.ndarray[Any, np.dtype[np.float64]] = polygons / np.tile(np.stack(sides, axis=1), length // 2)
    return shares
