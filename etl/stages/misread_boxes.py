"""Reject boxes whose numbers mean something else than their format says, as far as all boxes together show it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import from_table
from etl.stages.box_checks import Check, Tables
from etl.stages.ingest import add_drops, is_dropped

_LEAST = 10  # boxes: fewer can look like anything
_NEARLY_ALL, _MANY, _HALF = 0.95, 0.3, 0.5  # shares of the boxes
_SIZES = {"coco": 0.0, "visdrone": 0.0, "yolo": 0.5}  # formats with a size: which part of it lies left of x, above y
_SLACK, _BORDER = 1.0, 0.02  # px and share of the side by which a box may reach outside its image
_SHARES = "coordinates in pixels; these lie within the first pixel"
_CORNERS = "a position with width and height; the numbers look like two corners"
_TWO_CORNERS = "two corners; the last numbers look like width and height"

Bools = NDArray[np.bool_]


class _Boxes(NamedTuple):
    """Boxes that are not rejected."""

    rows: pa.Table  # of annotations
    xyxy: NDArray[np.float64]
    signs: dict[str, Bools]  # which of the boxes have each sign of a misreading


class MisreadBoxes:
    """The boxes of all images, counted by the signs of a misreading."""

    def __init__(self, source_format: str) -> None:
        self._format = source_format
        self._counts: Counter[str] = Counter()  # boxes by sign

    def add(self, tables: Tables) -> None:
        """Count the boxes of some images."""
        signs = _usable_boxes(tables, self._format).signs
        self._counts.update({name: int(boxes.sum()) for name, boxes in signs.items()})

    def checks(self) -> list[Check]:
        """Return the check that rejects the boxes of the misreading; none if the boxes mean what the format says."""
        if self._counts["usable"] < _LEAST:
            return []
        for is_misread, sign, reason, expected in (
            (self._are_shares(), "first_pixel", "shares_for_pixels", _SHARES),
            (self._are_corners(), "boxes", "corners_for_size", _CORNERS),
            (self._are_sizes(), "usable", "size_for_corners", _TWO_CORNERS),
        ):
            if is_misread:
                return [partial(_reject, source_format=self._format, sign=sign, reason=reason, expected=expected)]
        return []

    def _share(self, sign: str) -> float:
        return self._counts[sign] / self._counts["usable"]

    def _are_shares(self) -> bool:
        """Return whether coordinates are from 0 to 1 in a format with pixels."""
        return self._format != "yolo" and self._share("first_pixel") >= _HALF

    def _are_corners(self) -> bool:
        """Return whether there are two corners in place of a position with width and height."""
        boxes = self._counts["boxes"]
        return (
            self._format in _SIZES
            and boxes >= _LEAST
            and self._counts["corners"] >= _NEARLY_ALL * boxes
            and self._counts["outside"] >= _MANY * boxes
        )

    def _are_sizes(self) -> bool:
        """Return whether there are width and height in place of the second corner."""
        return self._share("sorted") >= _HALF and self._share("fits") >= _NEARLY_ALL


def _reject(tables: Tables, source_format: str, sign: str, reason: str, expected: str) -> Tables:
    """Return the tables with the boxes that have a sign rejected; their annotation rows are kept.

    A box that was already rejected keeps its first reason.
    """
    boxes = _usable_boxes(tables, source_format)
    chosen = boxes.signs[sign]
    found = [" ".join(f"{side:.6g}" for side in box) for box in boxes.xyxy[chosen].tolist()]
    return add_drops(tables, boxes.rows.filter(pa.array(chosen)), reason, found, expected)


def _usable_boxes(tables: Tables, source_format: str) -> _Boxes:
    rows = tables["annotations"].filter(pc.invert(is_dropped(tables)))
    xyxy = from_table(rows)
    owner = pc.index_in(rows["image_id"], value_set=tables["images"]["image_id"].combine_chunks())
    wh = np.stack([tables["images"][side].take(owner).to_numpy() for side in ("width", "height")], axis=1)
    size, slack = xyxy[:, 2:] - xyxy[:, :2], np.maximum(_SLACK, _BORDER * wh)
    position = xyxy[:, :2] + _SIZES.get(source_format, 0.0) * size
    is_box = rows["polygon"].is_null().to_numpy()
    ledger = tables["ledger"]
    sorted_by_reader = ledger.filter(pc.equal(ledger["rule"], "sorted_corners"))["annotation_id"].combine_chunks()
    signs = {
        "usable": np.ones(rows.num_rows, np.bool_),
        "boxes": is_box,  # not polygons
        "first_pixel": (xyxy[:, 2:] <= 1).all(axis=1) & (wh > _LEAST).all(axis=1),
        # the second corner is right of and below the first
        "corners": (size > position).all(axis=1) & (size <= wh + _SLACK).all(axis=1) & is_box,
        "outside": ((xyxy[:, :2] < -slack) | (xyxy[:, 2:] > wh + slack)).any(axis=1) & is_box,
        "sorted": pc.is_in(rows["annotation_id"], sorted_by_reader).to_numpy(),  # corners exchanged in the file
        "fits": (xyxy[:, :2] + xyxy[:, 2:] <= wh + _SLACK).all(axis=1),
    }
    return _Boxes(rows, xyxy, {name: np.asarray(boxes, np.bool_) for name, boxes in signs.items()})
