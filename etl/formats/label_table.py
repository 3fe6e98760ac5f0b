"""Labels of many images as one Arrow table, a row for each image of each label file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.errors import SourceError
from etl.formats.labels import BadBox, ImageLabels, LabelBox

BOX = pa.schema(
    [
        ("category", pa.string()),
        *((side, pa.float64()) for side in ("x0", "y0", "x1", "y1")),
        ("line", pa.int32()),
        *((name, pa.bool_()) for name in ("empty", "crowd", "ignore")),
        *((name, pa.int32()) for name in ("difficult", "truncated", "occluded")),
        ("area", pa.float64()),
        ("polygon", pa.list_(pa.float64())),
        ("track_id", pa.string()),
        ("extra", pa.string()),  # JSON
        ("corrected", pa.string()),
        ("source_id", pa.string()),
    ]
)
BAD = pa.schema(
    [
        ("reason", pa.string()),
        ("found", pa.string()),
        ("expected", pa.string()),
        ("line", pa.int32()),
        ("source_id", pa.string()),
        ("of_image", pa.bool_()),  # the whole image cannot be used; false: a single annotation
    ]
)
LABELS = pa.schema(
    [
        ("path", pa.string()),  # of the listed image; null: there is none
        ("name", pa.string()),  # of the image, as the label file writes it
        ("file", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(pa.struct(list(BOX)))),
        ("bad", pa.list_(pa.struct(list(BAD)))),
    ]
)
_IMAGES_PER_TABLE = 1_000  # of labels that are objects before they become a table

Labels = tuple[str | None, str, ImageLabels]
Ints = NDArray[np.int64]


def from_labels(labels: Iterable[Labels]) -> pa.Table:
    """Return the labels of a reader as a table; they are objects for a thousand images at a time.

    A box without line and id gets its place among the boxes of its image, in brackets, as its id.
    """
    tables, pending = [LABELS.empty_table()], list[Labels]()
    for entry in labels:
        pending.append(entry)
        if len(pending) == _IMAGES_PER_TABLE:
            tables.append(_table_of(pending))
            pending = []
    return pa.concat_tables([*tables, _table_of(pending)]).combine_chunks()


def _table_of(labels: Sequence[Labels]) -> pa.Table:
    boxes = [[box_row(box, number) for number, box in enumerate(entry.boxes)] for _, _, entry in labels]
    bad = [[{**bad_row(box), "of_image": False} for box in entry.bad] for _, _, entry in labels]
    sizes = [entry.declared_wh or (None, None) for _, _, entry in labels]
    columns: dict[str, Any] = {
        "path": [path for path, _, _ in labels],
        "name": [name for _, name, _ in labels],
        "file": [entry.file for _, _, entry in labels],
        "width": [size[0] for size in sizes],
        "height": [size[1] for size in sizes],
        "boxes": boxes,
        "bad": bad,
    }
    try:
        return pa.table(columns, schema=LABELS)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        files = sorted({str(entry.file) for _, _, entry in labels})[:3]
        raise SourceError(f"labels of {', '.join(files)} do not fit a table: {error}") from error


def box_row(box: LabelBox, number: int) -> dict[str, Any]:
    """Return a box as a row of BOX."""
    x0, y0, x1, y1 = box.xyxy
    named = box.source_id is not None or box.line is not None
    return {
        "category": box.category,
        "x0": float(x0), "y0": float(y0), "x1": float(x1), "y1": float(y1),
        "line": box.line,
        "empty": bool(box.empty),
        "crowd": bool(box.crowd),
        "ignore": bool(box.ignore),
        "difficult": box.difficult,
        "truncated": box.truncated,
        "occluded": box.occluded,
        "area": box.area,
        "polygon": None if box.polygon is None else list(box.polygon),
        "track_id": box.track_id,
        "extra": json.dumps(box.extra, sort_keys=True, ensure_ascii=False) if box.extra else None,
        "corrected": box.corrected,
        "source_id": box.source_id if named else f"[{number}]",
    }  # fmt: skip


def bad_row(bad: BadBox) -> dict[str, Any]:
    """Return a bad box as a row of BAD, without the column `of_image`."""
    return {
        "reason": bad.reason,
        "found": str(bad.found),
        "expected": bad.expected,
        "line": bad.line,
        "source_id": bad.source_id,
    }


def to_labels(table: pa.Table) -> Iterator[Labels]:
    """Yield the rows of a table of labels as objects."""
    boxes, bad = list(_boxes(table)), list(_bad(table))
    box_ends, bad_ends = _offsets(table, "boxes"), _offsets(table, "bad")
    columns = (table[name].to_pylist() for name in ("path", "name", "file", "width", "height"))
    for row, (path, name, file, width, height) in enumerate(zip(*columns, strict=True)):
        declared = (width, height) if width is not None and height is not None else None
        own_boxes = tuple(boxes[box_ends[row] : box_ends[row + 1]])
        own_bad = tuple(bad[bad_ends[row] : bad_ends[row + 1]])
        yield path, name, ImageLabels(file, own_boxes, own_bad, declared)


def _boxes(table: pa.Table) -> Iterator[LabelBox]:
    columns = {name: values.to_pylist() for name, values in _children(table, "boxes").items()}
    corners = zip(*(columns.pop(side) for side in ("x0", "y0", "x1", "y1")), strict=True)
    extras = (json.loads(text) if text else {} for text in columns.pop("extra"))
    polygons = (None if points is None else tuple(points) for points in columns.pop("polygon"))
    rest = zip(*columns.values(), strict=True)
    for values, xyxy, polygon, extra in zip(rest, corners, polygons, extras, strict=True):
        yield LabelBox(xyxy=xyxy, polygon=polygon, extra=extra, **dict(zip(columns, values, strict=True)))


def _bad(table: pa.Table) -> Iterator[BadBox]:
    columns = {name: values.to_pylist() for name, values in _children(table, "bad").items()}
    del columns["of_image"]
    yield from (BadBox(*values) for values in zip(*columns.values(), strict=True))


def _list(table: pa.Table, name: str) -> pa.ListArray:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _children(table: pa.Table, name: str) -> dict[str, pa.Array]:
    """Return the columns of the rows in a list column, over all rows of the table."""
    rows = pc.list_flatten(_list(table, name))
    return dict(zip(rows.type.names, rows.flatten(), strict=True))


def _offsets(table: pa.Table, name: str) -> list[int]:
    offsets: list[int] = np.cumsum([0, *pc.list_value_length(_list(table, name)).to_pylist()]).tolist()
    return offsets


def group_rows(rows: pa.Table, owner: Ints, count: int) -> pa.ListArray:
    """Return a list column of `count` rows from rows that each belong to one of them, in order within it."""
    if (np.diff(owner) < 0).any():
        order = np.argsort(owner, kind="stable")
        owner, rows = owner[order], rows.take(pa.array(order))
    ends = np.searchsorted(owner, np.arange(count + 1)).astype(np.int32)
    values = pa.StructArray.from_arrays(
        [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in rows.columns],
        fields=list(rows.schema),
    )
    return pa.ListArray.from_arrays(pa.array(ends), values)


def digests(table: pa.Table) -> list[str]:
    """Return a digest of each row of a table of labels."""
    heads = zip(*(table[name].to_pylist() for name in ("path", "name", "file", "width", "height")), strict=True)
    hashes = [hashlib.sha256(repr(head).encode(errors="backslashreplace")) for head in heads]
    for name in ("boxes", "bad"):
        ends = np.array(_offsets(table, name))
        for data, starts in _bytes_of(_children(table, name)):
            for (start, end), found in zip(pairwise(starts[ends].tolist()), hashes, strict=True):
                found.update(b"%d:" % (end - start))
                found.update(data[start:end])
    return [found.hexdigest() for found in hashes]


def _bytes_of(columns: Mapping[str, pa.Array]) -> Iterator[tuple[memoryview, Ints]]:
    """Yield bytes that determine the columns, each with the position of every row in them, and of their end."""
    count = len(next(iter(columns.values())))
    missing = np.zeros(count, np.int64)
    words: list[Ints] = []  # 8 bytes a row
    for number, values in enumerate(columns.values()):
        missing |= np.asarray(values.is_null()).astype(np.int64) << number
        if pa.types.is_string(values.type):
            word = np.asarray(pc.binary_length(values).fill_null(0)).astype(np.int64)
            text = b"".join(values.fill_null("").cast(pa.binary()).to_pylist())
            yield memoryview(text), np.concatenate([[0], np.cumsum(word)])
        elif pa.types.is_list(values.type):
            word = np.asarray(pc.list_value_length(values).fill_null(0)).astype(np.int64)
            flat = np.asarray(pc.list_flatten(values)).astype(np.float64)
            yield memoryview(flat.tobytes()), np.concatenate([[0], np.cumsum(word)]) * flat.itemsize
        elif pa.types.is_floating(values.type):
            word = np.asarray(values.fill_null(0.0)).astype(np.float64).view(np.int64)
        else:
            filled = values.fill_null(False if pa.types.is_boolean(values.type) else 0)
            word = np.asarray(filled).astype(np.int64)
        words.append(word)
    rows = np.stack([missing, *words], axis=1)
    yield memoryview(rows.tobytes()), np.arange(count + 1) * rows.itemsize * rows.shape[1]
