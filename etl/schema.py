"""The Arrow schemas of every table, and the only words their enumerated columns may hold.

Coordinates are float pixels of the upright original image, xyxy, half-open, unless a column says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from etl.boxes import BUCKETS, XYXY
from etl.codes import check_reason

SPLITS = ("train", "val", "test")
LEFT_OUT = "left_out"  # images kept out of every split because they would leak
DIVIDED = "divided"  # the split of an image whose regions belong to several, see etl.region
USED = (*SPLITS, DIVIDED)  # what samples are made of
OUTCOMES = ("kept", "clipped", "dropped", "ignored", "merged")
FINAL = "final"  # the ledger stage that holds each box's final outcome, once
BASE = "tile"  # the recipe kind of samples that are plain cut-outs


class Column(NamedTuple):
    """A column of a table, or a field of a struct in one."""

    name: str
    type: pa.DataType
    meaning: str


def _struct(*columns: Column) -> pa.DataType:
    return pa.struct([(column.name, column.type) for column in columns])


def _corners(type: pa.DataType, meaning: str) -> tuple[Column, ...]:
    sides = ("left", "top", "right", "bottom")
    return tuple(Column(name, type, f"{side} edge {meaning}") for name, side in zip(XYXY, sides, strict=True))


_IMAGES = (
    Column("image_id", pa.string(), "first 16 hex digits of the SHA-256 of the path"),
    Column("path", pa.string(), "relative to `source.images`, with `/`"),
    Column("sha256", pa.string(), "of the file"),
    Column("width", pa.int32(), "px, upright"),
    Column("height", pa.int32(), "px, upright"),
    Column("format", pa.string(), "actual file format, regardless of extension: JPEG, MPO, PNG, ..."),
    Column("exif_orientation", pa.int8(), "1 to 8, as in the file"),
    Column("exif_applied", pa.bool_(), "false: the labels fit the image as stored, so it is not rotated"),
    Column("group", pa.string(), "what the split keeps together"),
    Column("sequence", pa.string(), "name without its trailing number"),
    Column("frame", pa.int64(), "the trailing number of the name"),
    Column("split", pa.string(), "train, val, test, `left_out`, or `divided` into regions of several splits"),
    Column("phash", pa.uint64(), "perceptual hash"),
    Column("brightness", pa.float32(), "mean luma, 0 to 255"),
    Column("contrast", pa.float32(), "standard deviation of luma"),
    Column("sharpness", pa.float32(), "variance of the Laplacian of luma"),
    Column("labelled", pa.bool_(), "false: the image has no label file and is background"),
)
_ANNOTATIONS = (
    Column("annotation_id", pa.string(), "digest of image, category and box as written, never of the place in a file"),
    Column("image_id", pa.string(), "the image"),
    Column("category", pa.string(), "class name as written in the source, or corrected by a review"),
    *_corners(pa.float64(), "of the box, px, as written or corrected by a review"),
    Column("crowd", pa.bool_(), "the box marks a group of objects"),
    Column("ignore", pa.bool_(), "the box marks a region that is neither object nor background"),
    Column("difficult", pa.int32(), "above 0: trained on, ignored in evaluation"),
    Column("truncated", pa.int32(), "as in the source"),
    Column("occluded", pa.int32(), "as in the source"),
    Column("area", pa.float64(), "px², the source's own (of the mask), else that of the box"),
    Column("polygon", pa.list_(pa.float64()), "x y x y ..., px"),
    Column("track_id", pa.string(), "as in the source"),
    Column("extra", pa.string(), "JSON object of everything else in the source"),
    Column("file", pa.string(), "the label file; `review` for a box that a review added"),
    Column("line", pa.int32(), "its line, where the format has lines"),
    Column("source_id", pa.string(), "its id in the label file, or in brackets its place in a list there"),
)
_REJECTS = (
    Column("kind", pa.string(), "file, image or annotation"),
    Column("where", pa.string(), "path, with the line where there is one"),
    Column("reason", pa.string(), "see [Codes](codes.md#rejects)"),
    Column("found", pa.string(), "what the file holds"),
    Column("expected", pa.string(), "what it should hold"),
)
_LEDGER = (
    Column("annotation_id", pa.string(), "the box"),
    Column("stage", pa.string(), "ingest, split, remap, tile, augment, or `final` for the final outcome"),
    Column("outcome", pa.string(), "kept, clipped, dropped, ignored or merged"),
    Column("rule", pa.string(), "see [Codes](codes.md#ledger-rules)"),
    Column("value", pa.float64(), "what the rule measured, such as the visible share"),
    Column("sample_id", pa.string(), "the sample, for stages that make samples"),
)
_RECIPE = (
    Column("kind", pa.string(), "`tile`, or the augmentation"),
    Column("seed", pa.int64(), "of its random choices"),
    Column("parameters", pa.string(), "JSON object"),
    Column("parents", pa.list_(pa.string()), "sample_ids it is made from"),
)
_BOX = (
    *_corners(pa.float64(), "of the box, px of the sample"),
    Column("category", pa.string(), "trained class name"),
    Column("annotation_id", pa.string(), "the source box"),
    Column("visibility", pa.float64(), "visible share of the source box"),
    Column("weight", pa.float64(), "1 / number of base tiles that label the object; null in augmented samples"),
)
_COUNTS = tuple(Column(bucket, pa.int32(), "boxes of this source size") for bucket in BUCKETS)
_SAMPLES = (
    Column("sample_id", pa.string(), "digest of image, scale, window and recipe"),
    Column("split", pa.string(), "train, val or test"),
    Column("image_id", pa.string(), "the source image"),
    Column("shard", pa.string(), "SHA-256 of the tar, its file name"),
    Column("offset", pa.int64(), "of the encoded image in the shard, bytes"),
    Column("size", pa.int64(), "of the encoded image, bytes"),
    Column("sha256", pa.string(), "of the encoded image"),
    *_corners(pa.int32(), "of the window, source px"),
    Column("scale", pa.float64(), "by which the window was resized"),
    Column("width", pa.int32(), "of the sample, px"),
    Column("height", pa.int32(), "of the sample, px"),
    Column("recipe", _struct(*_RECIPE), "how the sample was made"),
    Column("boxes", pa.list_(_struct(*_BOX)), "labelled objects"),
    Column("ignore", pa.list_(_struct(*_corners(pa.float64(), "px"))), "ignore regions, px of the sample"),
    Column("counts", _struct(*_COUNTS), "boxes by source size"),
)

COLUMNS = {
    "images": _IMAGES,
    "annotations": _ANNOTATIONS,
    "rejects": _REJECTS,
    "ledger": _LEDGER,
    "samples": _SAMPLES,
}
FIELDS = {"recipe": _RECIPE, "boxes": _BOX, "counts": _COUNTS}  # of the structs in samples
TABLES: dict[str, pa.Schema] = {
    name: pa.schema([(column.name, column.type) for column in columns]) for name, columns in COLUMNS.items()
}
IMAGES, ANNOTATIONS, REJECTS, LEDGER, SAMPLES = TABLES.values()


def table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the rows as a table of exactly this schema; a missing key is null, an unknown one an error."""
    rows = list(rows)
    for row in rows:
        if unknown := row.keys() - set(schema.names):
            raise KeyError(f"no such column: {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def add_missing_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with the columns that it lacks as null, in the order of the schema."""
    for number, field in enumerate(schema):
        if field.name not in table.column_names:
            table = table.add_column(number, field, pa.nulls(table.num_rows, field.type))
    return table


def place(file: str, line: int | None = None, image: str = "", source_id: str | None = None) -> str:
    """Return a location in a label file in the form of the table rejects: by line, else by image and id."""
    if line is not None:
        return f"{file}:{line}"
    if source_id is None:
        return file
    return f"{file}: {image} #{source_id}" if image else f"{file}: #{source_id}"


def reject(kind: str, where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    """Return one row of the rejects table; KeyError for an unregistered reason."""
    check_reason(kind, reason)
    return _reject(kind, where, reason, found, expected)


def reject_bad_box(where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    """Return the reject of an unreadable annotation; custom readers may give unregistered reasons."""
    return _reject("annotation", where, reason, found, expected)


def _reject(kind: str, where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    return {"kind": kind, "where": where, "reason": reason, "found": str(found), "expected": expected}
