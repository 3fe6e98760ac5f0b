"""The Arrow schemas of every table, and the only words their enumerated columns may hold.

Coordinates are float pixels of the upright original image, xyxy, half-open, unless a column says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from etl.boxes import BUCKETS, XYXY
from etl.codes import check_reason

SPLITS = ("train", "val", "test")


LEFT_OUT = "left_out"  # images kept out of every split because they would leak


DIVIDED = "divided"  # the split of an image whose regions belong to several, see etl.region


USED = (*SPLITS, DIVIDED)  # what samples are made of


OUTCOMES = ("kept", "clipped", "dropped", "ignored", "merged")


FINAL = "final"  # the ledger stage that holds each box's final outcome, once


_BOX_COLUMNS = [(name, pa.float64()) for name in XYXY]


IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),  # posix, relative to source.images
        ("sha256", pa.string()),
        ("width", pa.int32()),  # upright
        ("height", pa.int32()),
        ("format", pa.string()),  # of the bytes, not of the extension: JPEG, MPO, PNG, ...
        ("exif_orientation", pa.int8()),  # 1..8, as the file says
        ("exif_applied", pa.bool_()),  # false: the labels were drawn on the unrotated image
        ("group", pa.string()),
        ("sequence", pa.string()),
        ("frame", pa.int64()),
        ("split", pa.string()),
        ("phash", pa.uint64()),  # perceptual hash, see etl.codec.perceptual_hash
        ("brightness", pa.float32()),  # mean luma, 0..255
        ("contrast", pa.float32()),  # standard deviation of luma
        ("sharpness", pa.float32()),  # variance of the Laplacian of luma
        ("labelled", pa.bool_()),  # false: no label file, a background image
    ]
)


ANNOTATIONS = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("image_id", pa.string()),
        ("category", pa.string()),
        *_BOX_COLUMNS,
        ("crowd", pa.bool_()),
        ("ignore", pa.bool_()),
        ("difficult", pa.int32()),
        ("truncated", pa.int32()),
        ("occluded", pa.int32()),
        ("area", pa.float64()),  # the file's own, else the box's
        ("polygon", pa.list_(pa.float64())),  # x y x y ...
        ("track_id", pa.string()),
        ("extra", pa.string()),  # JSON object of whatever else the file said
        ("file", pa.string()),
        ("line", pa.int32()),
    ]
)


REJECTS = pa.schema(
    [
        ("kind", pa.string()),  # file, image, annotation
        ("where", pa.string()),
        ("reason", pa.string()),
        ("found", pa.string()),
        ("expected", pa.string()),
    ]
)


LEDGER = pa.schema(
    [
        ("annotation_id", pa.string()),
        ("stage", pa.string()),
        ("outcome", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("sample_id", pa.string()),
    ]
)


_BOX = pa.struct(
    [
        *_BOX_COLUMNS,
        ("category", pa.string()),
        ("annotation_id", pa.string()),
        ("visibility", pa.float64()),
        ("weight", pa.float64()),  # 1/k over the k base tiles that label the object; null in augmented samples
    ]
)


_RECIPE = pa.struct(
    [
        ("kind", pa.string()),  # tile, or the augmentation
        ("seed", pa.int64()),
        ("parameters", pa.string()),  # JSON
        ("parents", pa.list_(pa.string())),  # sample_ids
    ]
)


_COUNTS = pa.struct([(name, pa.int32()) for name in BUCKETS])


SAMPLES = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("image_id", pa.string()),
        ("shard", pa.string()),  # sha256 of the tar, its file name
        ("offset", pa.int64()),  # of the encoded image inside the shard, bytes
        ("size", pa.int64()),
        ("sha256", pa.string()),  # of the encoded image
        *[(name, pa.int32()) for name in XYXY],  # window, source pixels
        ("scale", pa.float64()),
        ("width", pa.int32()),  # of the sample, pixels
        ("height", pa.int32()),
        ("recipe", _RECIPE),
        ("boxes", pa.list_(_BOX)),  # sample pixels
        ("ignore", pa.list_(pa.struct(_BOX_COLUMNS))),  # sample pixels
        ("counts", _COUNTS),  # boxes by source size
    ]
)


TABLES: dict[str, pa.Schema] = {
    "images": IMAGES,
    "annotations": ANNOTATIONS,
    "rejects": REJECTS,
    "ledger": LEDGER,
    "samples": SAMPLES,
}


def table(schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the rows as a table of exactly this schema; a missing key is null, an unknown one an error."""
    rows = list(rows)
    for row in rows:
        if unknown := row.keys() - set(schema.names):
            raise KeyError(f"no such column: {sorted(unknown)}")
    return pa.Table.from_pylist(rows, schema=schema)


def place(file: str, line: int | None) -> str:
    """Return where something stands, as the rejects table says it."""
    return file if line is None else f"{file}:{line}"


def reject(kind: str, where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    """Return one row of the rejects table; KeyError for an unregistered reason."""
    check_reason(kind, reason)
    return _reject(kind, where, reason, found, expected)


def reject_bad_box(where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    """Return the reject of an unreadable annotation; custom readers may give unregistered reasons."""
    return _reject("annotation", where, reason, found, expected)


def _reject(kind: str, where: str, reason: str, found: object, expected: str) -> dict[str, str]:
    return {"kind": kind, "where": where, "reason": reason, "found": str(found), "expected": expected}


BASE = "tile"  # the recipe kind of samples that are plain cut-outs
