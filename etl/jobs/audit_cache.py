"""The audit cache: what was measured of the pixels of each image, valid while the image and its boxes are unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from etl.boxes import XYXY
from etl.config import Config
from etl.ids import digest
from etl.imaging.wide import NO_SETTINGS, PixelSettings
from etl.jobs.versions import VERSIONS
from etl.stages.audit.class_similarity import Descriptor
from etl.stages.audit.counts import Summary
from etl.storage import cache, store
from etl.storage.paths import DatasetPaths

_COUNT = pa.struct([("key", pa.string()), ("number", pa.int64())])  # the key as JSON
_FILES = pa.struct([("code", pa.string()), ("files", pa.list_(pa.string()))])
_DESCRIPTOR = pa.struct([("category", pa.string()), ("rank", pa.float64()), ("features", pa.binary())])
_CACHE = pa.schema(
    [
        ("image_id", pa.string()),
        ("key", pa.string()),
        ("counts", pa.list_(_COUNT)),
        ("files", pa.list_(_FILES)),
        ("descriptors", pa.list_(_DESCRIPTOR)),
    ]
)
_IMAGE = ("image_id", "sha256", "width", "height", "format", "exif_orientation", "exif_applied")
_BOX = ("annotation_id", "category", *XYXY, "file", "line", "source_id")


def image_keys(
    images: pa.Table,
    annotations: pa.Table,
    settings: PixelSettings = NO_SETTINGS,
) -> dict[str, str]:
    """Return, by image_id, a digest of everything that determines what is measured of an image and its usable boxes."""
    boxes: dict[str, list[list[object]]] = {}
    for image, *box in zip(*(annotations[name].to_pylist() for name in ("image_id", *_BOX)), strict=True):
        boxes.setdefault(image, []).append(box)
    return {
        row["image_id"]: digest(
            VERSIONS["audit"], list(row.values()), boxes.get(row["image_id"], []), *settings.key(row["format"])
        )
        for row in images.select(list(_IMAGE)).to_pylist()
    }


def load(config: Config, keys: Mapping[str, str]) -> dict[str, Summary]:
    """Return the cached measurements, by image_id, of the images whose key is still the same."""
    rows = cache.load(_uri(config), _CACHE, "audit cache", "measuring every image of the sample").to_pylist()
    return {row["image_id"]: _summary(row) for row in rows if keys.get(row["image_id"]) == row["key"]}


def save(config: Config, keys: Mapping[str, str], measured: Mapping[str, Summary]) -> None:
    """Replace the cache with these measurements."""
    rows = [{"image_id": name, "key": keys[name], **_columns(summary)} for name, summary in measured.items()]
    store.write_table(_uri(config), pa.Table.from_pylist(rows, schema=_CACHE))


def _columns(summary: Summary) -> dict[str, object]:
    return {
        "counts": [{"key": json.dumps(key), "number": number} for key, number in summary.counts.items()],
        "files": [{"code": code, "files": files} for code, files in summary.files.items()],
        "descriptors": [
            {"category": category, "rank": row.rank, "features": row.features}
            for category, rows in summary.descriptors.items()
            for row in rows
        ],
    }


def _summary(row: Mapping[str, Any]) -> Summary:
    descriptors: dict[str, tuple[Descriptor, ...]] = {}
    for each in row["descriptors"]:
        found = Descriptor(each["rank"], row["image_id"], each["features"])
        descriptors[each["category"]] = (*descriptors.get(each["category"], ()), found)
    counts = {tuple(json.loads(each["key"])): each["number"] for each in row["counts"]}
    files = {each["code"]: tuple(each["files"]) for each in row["files"]}
    return Summary(counts, files, descriptors=descriptors)


def _uri(config: Config) -> str:
    return DatasetPaths(config.home).pixels
