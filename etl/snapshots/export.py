"""Export the samples of a snapshot for other training frameworks: as YOLO, COCO or WebDataset."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from etl import formats, schema
from etl.boxes import XYXY, from_rows
from etl.errors import ConfigError, StoreError
from etl.imaging import codec
from etl.imaging.mask import mask_out
from etl.numbers import count_of
from etl.snapshots.problem import name_repair
from etl.snapshots.snapshot import Snapshot
from etl.storage import shard, store

log = logging.getLogger("speck")

FORMATS = ("yolo", "coco", "webdataset")

Row = dict[str, Any]


def export(snapshot: Snapshot, format: str, out: Path, *, raw: bool = False) -> dict[str, Any]:
    """Write the samples to a new or empty folder and return the answer of `speck export`.

    Ignore regions, crowds included, are painted grey except inside labelled boxes and have no annotation: most COCO
    readers treat `iscrowd: 1` as an object. Only painted samples are re-encoded. With `raw`, nothing is painted.
    ConfigError for an unknown format or a folder that is not empty, StoreError for a damaged shard.
    """
    if format not in FORMATS:
        raise ConfigError("speck", "--format", repr(format), f"one of {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("speck", "OUT", f"{out}, which exists and is not an empty folder", "a new or empty folder")
    write = _write_webdataset if format == "webdataset" else _writer_of(format)
    samples, painted = write(snapshot, out, raw)
    return {"out": str(out), "format": format, "samples": samples, "painted": painted}


def _writer_of(name: str) -> Callable[[Snapshot, Path, bool], tuple[int, int]]:
    writer = formats.get_writer(name)

    def write(snapshot: Snapshot, out: Path, raw: bool) -> tuple[int, int]:
        images: list[Row] = []
        annotations: list[Row] = []
        count = 0
        for row, data in _samples(snapshot):
            images.append(_image_row(row))
            annotations += [_annotation_row(row, box) for box in row["boxes"]]
            if row["ignore"] and not raw:
                data = _paint(snapshot, row, data)
                count += 1
            path = out / writer.image_file(f"{row['sample_id']}.jpg", row["split"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        tables = schema.table(schema.IMAGES, images), schema.table(schema.ANNOTATIONS, annotations)
        writer.write(out, *tables, snapshot.categories)
        return len(images), count

    return write


def _write_webdataset(snapshot: Snapshot, out: Path, raw: bool) -> tuple[int, int]:
    out.mkdir(parents=True, exist_ok=True)
    total, painted, numbers = 0, 0, dict.fromkeys(schema.SPLITS, 0)
    for entry, rows, data in _shards(snapshot):
        split = entry["split"]
        path = out / f"{split}-{numbers[split]:06d}.tar"
        numbers[split] += 1
        total += len(rows)
        painted_rows = 0 if raw else sum(bool(row["ignore"]) for row in rows)
        painted += painted_rows
        if not painted_rows:
            path.write_bytes(data)
            continue
        writer = shard.ShardWriter(path)
        records = shard.read_members(data)
        for row in rows:
            image = _image_bytes(row, data)
            if row["ignore"]:
                image = _paint(snapshot, row, image)
            blocks, _ = shard.sample_blocks(row["sample_id"], image, records[f"{row['sample_id']}.json"])
            writer.add(blocks)
        writer.close()
    (out / "categories.json").write_text(json.dumps(snapshot.categories, ensure_ascii=False) + "\n", encoding="utf-8")
    return total, painted


def _shards(snapshot: Snapshot) -> Iterator[tuple[dict[str, Any], list[Row], bytes]]:
    """Yield the manifest entry of each shard, its rows of the table samples by offset, and its content."""
    samples = snapshot.table("samples")
    for entry in snapshot.manifest["shards"]:
        rows = samples.filter(pc.equal(samples["shard"], entry["sha256"])).sort_by("offset").to_pylist()
        yield entry, rows, _read_shard(snapshot, entry["sha256"])
        log.info("export: wrote %s of shard %s", count_of(len(rows), "sample"), entry["sha256"][:12])


def _read_shard(snapshot: Snapshot, sha256: str) -> bytes:
    uri = snapshot.shard_uri(sha256)
    with name_repair(snapshot.uri):
        data = store.read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"{uri}: its SHA-256 is not {sha256[:12]}…")
    return data


def _samples(snapshot: Snapshot) -> Iterator[tuple[Row, bytes]]:
    for _, rows, data in _shards(snapshot):
        for row in rows:
            yield row, _image_bytes(row, data)


def _image_bytes(row: Row, data: bytes) -> bytes:
    image = data[row["offset"] : row["offset"] + row["size"]]
    if len(image) != row["size"]:
        raise StoreError(f"sample {row['sample_id']} is outside its shard; run `speck verify`")
    return image


def _paint(snapshot: Snapshot, row: Row, data: bytes) -> bytes:
    """Return the JPEG of a sample with its ignore regions grey, re-encoded with the same chroma subsampling."""
    try:
        pixels = codec.decode(data)
    except codec.UnreadableImageError as error:
        raise StoreError(f"sample {row['sample_id']}: {error}") from error
    image = mask_out(pixels, from_rows(row["ignore"]), from_rows(row["boxes"]))
    return codec.encode(image, snapshot.config.shard.quality, codec.chroma_sampling(data))


def _image_row(row: Row) -> Row:
    return {
        **{name: row[name] for name in ("sha256", "width", "height", "split")},
        "image_id": row["sample_id"],
        "path": f"{row['sample_id']}.jpg",
        "labelled": True,
    }


def _annotation_row(row: Row, box: Row) -> Row:
    corners = {side: box[side] for side in XYXY}
    names = {"annotation_id": box["annotation_id"], "image_id": row["sample_id"], "category": box["category"]}
    flags = {"crowd": False, "ignore": False, "difficult": 0, "truncated": 0, "occluded": 0}
    return {**names, **corners, **flags}
