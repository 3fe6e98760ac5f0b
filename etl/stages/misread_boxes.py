"""Reject boxes whose numbers mean something else than their format says, as far as all boxes together show it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import XYXY, from_table
from etl.stages.ingest import add_drops, is_dropped

_LEAST = 10  # boxes: fewer can look like anything
_NEARLY_ALL, _MANY, _HALF = 0.95, 0.3, 0.5  # shares of the boxes
_SIZES = {"coco": 0.0, "visdrone": 0.0, "yolo": 0.5}  # formats with a size: which part of it lies left of x, above y
_SLACK, _BORDER = 1.0, 0.02  # px and share of the side by which a box may reach outside its image

Bools = NDArray[np.bool_]


class _Misreading(NamedTuple):
    reason: str
    boxes: Bools  # which of the usable boxes have it
    expected: str


def reject_misread_boxes(tables: dict[str, pa.Table], source_format: str) -> dict[str, pa.Table]:
    """Return the tables with the boxes of a misreading rejected; their annotation rows are kept.

    A box that was already rejected keeps its first reason.
    """
    usable = pc.invert(is_dropped(tables))
    rows = tables["annotations"].select(["annotation_id", "image_id", *XYXY, "polygon"]).filter(usable)
    if rows.num_rows < _LEAST:
        return tables
    xyxy = from_table(rows)
    owner = pc.index_in(rows["image_id"], value_set=tables["images"]["image_id"].combine_chunks())
    wh = np.stack([tables["images"][side].take(owner).to_numpy() for side in ("width", "height")], axis=1)
    for misreading in (
        _shares(xyxy, wh, source_format),
        _corners(xyxy, wh, source_format, rows["polygon"].is_null().to_numpy()),
        _sizes(xyxy, wh, rows["annotation_id"], tables["ledger"]),
    ):
        if misreading is not None:
            chosen = tables["annotations"].filter(usable).filter(pa.array(misreading.boxes))
            found = [" ".join(f"{side:.6g}" for side in box) for box in xyxy[misreading.boxes].tolist()]
            return add_drops(tables, chosen, misreading.reason, found, misreading.expected)
    return tables


def _shares(xyxy: NDArray[np.float64], wh: NDArray[np.int64], source_format: str) -> _Misreading | None:
    """Find boxes within the first pixel of their image: coordinates from 0 to 1 in a format with pixels."""
    first: Bools = np.logical_and((xyxy[:, 2:] <= 1).all(axis=1), (wh > _LEAST).all(axis=1))
    if source_format == "yolo" or first.mean() < _HALF:
        return None
    return _Misreading("shares_for_pixels", first, "coordinates in pixels; these lie within the first pixel")


def _corners(xyxy: NDArray[np.float64], wh: NDArray[np.int64], source_format: str, is_box: Bools) -> _Misreading | None:
    """Find two corners in place of a position with width and height: the second is right of and below the first."""
    if source_format not in _SIZES or is_box.sum() < _LEAST:
        return None
    size = xyxy[:, 2:] - xyxy[:, :2]
    position = xyxy[:, :2] + _SIZES[source_format] * size
    are_corners = (size > position).all(axis=1) & (size <= wh + _SLACK).all(axis=1) & is_box
    slack = np.maximum(_SLACK, _BORDER * wh)
    outside = ((xyxy[:, :2] < -slack) | (xyxy[:, 2:] > wh + slack)).any(axis=1) & is_box
    if are_corners.sum() < _NEARLY_ALL * is_box.sum() or outside.sum() < _MANY * is_box.sum():
        return None
    return _Misreading(
        "corners_for_size", is_box, "a position with width and height; the numbers look like two corners"
    )


def _sizes(
    xyxy: NDArray[np.float64], wh: NDArray[np.int64], ids: pa.ChunkedArray, ledger: pa.Table
) -> _Misreading | None:
    """Find width and height in place of the second corner, in boxes whose exchanged corners a reader has sorted."""
    corrected = ledger.filter(pc.equal(ledger["rule"], "sorted_corners"))["annotation_id"].combine_chunks()
    is_sorted = pc.is_in(ids, corrected).to_numpy()
    fits = (xyxy[:, :2] + xyxy[:, 2:] <= wh + _SLACK).all(axis=1)
    if is_sorted.mean() < _HALF or fits.mean() < _NEARLY_ALL:
        return None
    everything = np.ones(len(ids), bool)
    return _Misreading("size_for_corners", everything, "two corners; the last numbers look like width and height")
