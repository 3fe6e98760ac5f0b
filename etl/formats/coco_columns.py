"""The annotations of a COCO document as columns: the ordinary ones at once, the others one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.formats.coco_boxes import read_annotation, source_id
from etl.formats.coco_numbers import is_id
from etl.formats.coco_repeats import unclear_keys
from etl.formats.label_table import BOX, box_row
from etl.formats.labels import BadBox, LabelBox
from etl.formats.text import excerpt

Ints = NDArray[np.int64]
_ORDINARY = frozenset(("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"))
_NUMBERS, _IDS, _INT = frozenset((int, float)), frozenset((int, str)), frozenset((int,))
_NOT_BOXES = ("caption", "segments_info", "keypoints")  # what annotations of other tasks hold


class Annotations:
    """The annotations of one document, gathered piece by piece; their ids are still those of the document."""

    def __init__(self) -> None:
        self.count = 0
        self.bad: list[tuple[int, BadBox]] = []  # number of the annotation, and why it is no box
        self.as_text = 0  # boxes with a number or a flag that is written as text
        self.kinds = dict.fromkeys(_NOT_BOXES, 0)  # annotations with such a key
        self.without_box = 0  # annotations without the keys of a box
        self._image_codes: dict[Any, int] = {}
        self._category_codes: dict[Any, int] = {}
        self._image: list[Ints] = []
        self._category: list[Ints] = []
        self._boxes: list[pa.Table] = [BOX.empty_table()]
        self._numbers: list[Ints] = []
        self._source_ids: list[pa.Array] = []

    @property
    def image_ids(self) -> list[Any]:
        """The distinct image ids, by code."""
        return list(self._image_codes)

    @property
    def category_ids(self) -> list[Any]:
        """The distinct category ids, by code."""
        return list(self._category_codes)

    def image(self) -> Ints:
        """Return the code of each annotation's image id."""
        return np.concatenate([np.empty(0, np.int64), *self._image])

    def category(self) -> Ints:
        """Return the code of each annotation's category id."""
        return np.concatenate([np.empty(0, np.int64), *self._category])

    def boxes(self) -> tuple[pa.Table, Ints]:
        """Return the boxes as rows of BOX without category, and the number of each one's annotation."""
        return pa.concat_tables(self._boxes), np.concatenate([np.empty(0, np.int64), *self._numbers])

    def source_ids(self) -> pa.ChunkedArray:
        """Return the id of each annotation as text."""
        return pa.chunked_array(self._source_ids, pa.string())

    def add(self, rows: Sequence[Any]) -> None:
        """Add the next annotations of the document."""
        self._image.append(_codes(rows, "image_id", self._image_codes))
        self._category.append(_codes(rows, "category_id", self._category_codes))
        ids = _source_ids(rows, self.count)
        self._source_ids.append(ids)
        ordinary = np.fromiter(map(_is_ordinary, rows), bool, len(rows))
        chosen = rows if ordinary.all() else [rows[number] for number in np.flatnonzero(ordinary).tolist()]
        table = _read_ordinary(chosen, ids.filter(pa.array(ordinary)))
        if table is None:  # a number that no column can hold
            ordinary[:] = False
            table = BOX.empty_table()
        others = np.flatnonzero(~ordinary)
        numbers = np.flatnonzero(ordinary)
        if len(others):
            table, numbers = self._add_others(rows, others.tolist(), table, numbers)
        self._boxes.append(table)
        self._numbers.append(numbers + self.count)
        self.count += len(rows)

    def _add_others(
        self, rows: Sequence[Any], others: Sequence[int], table: pa.Table, numbers: Ints
    ) -> tuple[pa.Table, Ints]:
        """Return the boxes of the ordinary and the other rows together, in the order of the rows."""
        found: list[tuple[int, LabelBox]] = []
        for number in others:
            row = rows[number]
            self._count_kind(row)
            box = read_annotation(row, self.count + number)
            if isinstance(box, BadBox):
                self.bad.append((self.count + number, box))
            else:
                found.append((number, box))
                self.as_text += _has_text(row)
        more = pa.Table.from_pylist([box_row(box, 0) for _, box in found], schema=BOX)
        both = np.concatenate([numbers, np.array([number for number, _ in found], np.int64)])
        order = np.argsort(both)
        return pa.concat_tables([table, more]).take(pa.array(order)), both[order]

    def _count_kind(self, row: Any) -> None:
        keys = row if isinstance(row, dict) else {}
        for kind in _NOT_BOXES:
            self.kinds[kind] += kind in keys
        self.without_box += "bbox" not in keys and "segmentation" not in keys


def _codes(rows: Sequence[Any], key: str, codes: dict[Any, int]) -> Ints:
    """Return the code of each row's id; new ids are added to the codes."""
    ids = [row.get(key) if type(row) is dict else _id_of_other(row, key) for row in rows]
    if not _IDS.issuperset(map(type, ids)):
        ids = [value if is_id(value) and value == value else (excerpt(value),) for value in ids]  # a tuple is no id
    return np.array([codes.setdefault(value, len(codes)) for value in ids], np.int64)


def _id_of_other(row: Any, key: str) -> Any:
    """Return the id in a row that is no plain object, None if it is unknown."""
    return row.get(key) if isinstance(row, dict) and key not in unclear_keys(row) else None


def _is_ordinary(row: Any) -> bool:
    """Return whether an annotation has only the usual keys, with values of the types that COCO documents."""
    if type(row) is not dict or not _ORDINARY.issuperset(row):
        return False
    bbox, outline = row.get("bbox"), row.get("segmentation")
    return (
        type(bbox) is list
        and len(bbox) == 4
        and _NUMBERS.issuperset(map(type, bbox))
        and type(row.get("id")) in _IDS
        and type(row.get("area", 0)) in _NUMBERS
        and (crowd := row.get("iscrowd", 0)) in (0, 1)
        and type(crowd) is int
        and (not outline or _is_polygon(outline))
    )


def _is_polygon(segmentation: Any) -> bool:
    """Return whether a segmentation is one polygon of numbers."""
    if type(segmentation) is not list or len(segmentation) != 1:
        return False
    (points,) = segmentation
    return type(points) is list and len(points) >= 6 and not len(points) % 2 and _NUMBERS.issuperset(map(type, points))


def _source_ids(rows: Sequence[Any], start: int) -> pa.Array:
    """Return the id of each annotation as text."""
    ids = [row.get("id") if type(row) is dict else None for row in rows]
    if _INT.issuperset(map(type, ids)):
        try:
            return pa.array(ids, pa.int64()).cast(pa.string())
        except OverflowError:  # more than 64 bits
            pass
    return pa.array([source_id(row, number) for number, row in enumerate(rows, start=start)], pa.string())


def _read_ordinary(rows: Sequence[dict[str, Any]], source_ids: pa.Array) -> pa.Table | None:
    """Return ordinary annotations as rows of BOX without category; None if a number is not finite."""
    outlines = [row["segmentation"][0] if row.get("segmentation") else None for row in rows]
    try:
        flat = np.fromiter(chain.from_iterable(row["bbox"] for row in rows), np.float64, 4 * len(rows))
        points = np.fromiter(chain.from_iterable(outline for outline in outlines if outline), np.float64)
        area = np.array([row.get("area", math.nan) for row in rows], np.float64)
    except OverflowError:
        return None
    x, y, w, h = flat.reshape(-1, 4).T
    with np.errstate(over="ignore"):
        x1, y1 = x + w, y + h
    has_area = np.array(["area" in row for row in rows], dtype=bool)
    finite = (np.isfinite(values).all() for values in (flat, x1, y1, points, area[has_area]))
    if not all(finite):
        return None
    ends = np.cumsum([0, *(len(outline or ()) for outline in outlines)], dtype=np.int32)
    no_outline = pa.array([outline is None for outline in outlines], pa.bool_())
    zeros = pa.array(np.zeros(len(rows), np.int32))
    false = pa.array(np.zeros(len(rows), bool))
    columns = {
        "category": pa.nulls(len(rows), pa.string()),
        "x0": x, "y0": y, "x1": x1, "y1": y1,
        "line": pa.nulls(len(rows), pa.int32()),
        "empty": (x1 <= x) | (y1 <= y),
        "crowd": np.array([row.get("iscrowd", 0) for row in rows], dtype=bool),
        "ignore": false,
        "difficult": zeros, "truncated": zeros, "occluded": zeros,
        "area": pa.array(area, mask=~has_area),
        "polygon": pa.ListArray.from_arrays(pa.array(ends), pa.array(points), mask=no_outline),
        "track_id": pa.nulls(len(rows), pa.string()),
        "extra": pa.nulls(len(rows), pa.string()),
        "corrected": pa.nulls(len(rows), pa.string()),
        "source_id": source_ids,
    }  # fmt: skip
    return pa.table(columns, schema=BOX)


def _has_text(row: dict[str, Any]) -> bool:
    """Return whether a number or a flag of a box is written as text."""
    bbox = row.get("bbox")
    values = (*(bbox if isinstance(bbox, list) else ()), row.get("iscrowd"), row.get("ignore"))
    return any(isinstance(value, str) for value in values)
