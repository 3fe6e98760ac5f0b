"""Reject YOLO pose rows that were read as polygons, because nothing says how many keypoints they have."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.formats import keypoints
from etl.stages.box_checks import Check, Tables
from etl.stages.ingest import add_drops, is_dropped


class PoseRows:
    """The polygons of all images by their length: one at which most of them are pose rows is no length of polygons."""

    def __init__(self) -> None:
        self._counts: dict[int, keypoints.FormCounts] = {}  # by length

    def add(self, tables: Tables) -> None:
        """Count the polygons of some images."""
        lengths = pc.list_value_length(tables["annotations"]["polygon"])
        for length in pc.unique(lengths).drop_null().to_pylist():
            rows = tables["annotations"].filter(pc.equal(lengths, length))
            counts = self._counts.setdefault(length, keypoints.FormCounts(length))
            counts.add(_normalise(rows, tables["images"], length))

    def checks(self) -> list[Check]:
        """Return a check for each length of pose rows, the shortest first."""
        forms = {length: counts.find_form() for length, counts in sorted(self._counts.items())}
        return [partial(_reject, length=length, form=form) for length, form in forms.items() if form is not None]


def _reject(tables: Tables, length: int, form: keypoints.Form) -> Tables:
    """Return the tables with every polygon of a length rejected and removed.

    A box that was already rejected keeps its first reason.
    """
    annotations = tables["annotations"]
    of_length = pc.fill_null(pc.equal(pc.list_value_length(annotations["polygon"]), length), False)
    chosen = pc.and_(of_length, pc.invert(is_dropped(tables)))
    rows = annotations.filter(chosen)
    found = [keypoints.describe(row) for row in _normalise(rows, tables["images"], length).tolist()]
    tables = add_drops(tables, rows, "pose_row", found, form.expected)
    return {**tables, "annotations": annotations.filter(pc.invert(chosen))}


def _normalise(rows: pa.Table, images: pa.Table, length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the polygons [N, length] in shares of their image's width and height, as they stand in the file."""
    owner = pc.index_in(rows["image_id"], value_set=images["image_id"].combine_chunks())
    sides = [images[side].take(owner).to_numpy().astype(np.float64) for side in ("width", "height")]
    polygons = pc.list_flatten(rows["polygon"]).to_numpy().reshape(-1, length)
    shares: np.ndarray[Any, np.dtype[np.float64]] = polygons / np.tile(np.stack(sides, axis=1), length // 2)
    return shares
