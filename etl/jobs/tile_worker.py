"""What one worker does with one part of a dataset; results go back small, bytes go to the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from etl import boxes, region, schema
from etl.config import Config
from etl.errors import StoreError
from etl.execution import malloc
from etl.ids import sample_id, seed_of
from etl.imaging import lossless
from etl.jobs.sample_writer import _add, _ledger, _Made, _SampleWriter
from etl.plan import Plan
from etl.schema import BASE
from etl.sources.images import applied_orientation, read_image_file
from etl.stages import tile
from etl.stages.augment import donor_reader, oversample, sample
from etl.stages.augment.labelled_image import Picture
from etl.stages.encode import Cutter
from etl.storage import shard, store


@dataclass(frozen=True)
class TilePart:
    """Some images with the boxes that go on, to be made into samples below `uri`."""

    config: Config
    plan: Plan
    uri: str
    images: pa.Table
    annotations: pa.Table
    loans: donor_reader.Loans


def tile_part(part: TilePart) -> bool:
    """Write the samples to `<uri>.tar`, `.ledger.parquet` and last `.samples.parquet`; False if they were there."""
    if _is_there(part.uri):
        return False
    lossless.check_codec(part.plan.codec)
    malloc.keep_freed()
    lender = donor_reader.Lender(
        part.loans, lambda image: read_image_file(part.config, image).pixels(applied_orientation(image))
    )
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in part.annotations.to_pylist():
        by_image.setdefault(row["image_id"], []).append(row)
    with store.writing(f"{part.uri}.tar", durable=False) as file:
        writer = _SampleWriter(file)
        for image in part.images.to_pylist():
            _make_samples(part, image, by_image.get(image["image_id"], []), lender, writer)
    store.write_table(f"{part.uri}.ledger.parquet", schema.table(schema.LEDGER, writer.ledger), durable=False)
    store.write_table(f"{part.uri}.samples.parquet", writer.table(), durable=False)
    malloc.tidy()
    return True


_PLACE = ("offset", "size", "sha256")


def _is_there(uri: str) -> bool:
    """Return whether an earlier try left a part: all of it, for the machine may have failed before it was on disk."""
    if not store.exists(f"{uri}.samples.parquet"):
        return False
    try:
        samples = store.read_table(f"{uri}.samples.parquet")
        store.read_table(f"{uri}.ledger.parquet")
        data = memoryview(store.read_bytes(f"{uri}.tar"))
    except StoreError:
        return False
    return all(
        hashlib.sha256(data[start + shard.IMAGE_OFFSET :][:size]).hexdigest() == sha256
        for start, size, sha256 in zip(*(samples[name].to_pylist() for name in _PLACE), strict=True)
    )


def _make_samples(
    part: TilePart, image: dict[str, Any], rows: donor_reader.Rows, lender: donor_reader.Lender, writer: _SampleWriter
) -> None:
    config, plan, own = part.config, part.plan, image["image_id"]
    file = read_image_file(config, image)
    xyxy, ignore = boxes.from_rows(rows), donor_reader.ignored(rows)
    sides = boxes.side_length(boxes.clip(xyxy, (0, 0, image["width"], image["height"])))
    regions = region.regions_of(image, config.source.held_out)
    found = tile.tiles((image["width"], image["height"]), xyxy, ignore, plan.tile, regions)
    weights = tile.weights(found, len(rows))
    names = [sample_id(own, cut.scale, cut.window, BASE, 0) for cut in found]
    kept = [
        (name, cut)
        for name, cut in zip(names, found, strict=True)
        if cut.split != "train" or cut.labelled.size or tile.keeps_negative(name, cut.near, plan)
    ]
    tiles = [cut for _, cut in kept]
    cutter = Cutter(file, applied_orientation(image), name=plan.codec, quality=config.shard.quality, tiles=tiles)
    donors = lender.pictures(own, len(rows))
    all_rows = [*rows, *lender.rows(own)]
    buckets = boxes.bucket(np.concatenate([sides, lender.sides(own)]))
    picture: Picture | None = None
    for name, cut in kept:
        base = _Made(name, cut, BASE, 0, {}, [], cut.boxes, cut.labelled, cut.visibility, cut.ignore, weights)
        _add(writer, image, rows, base, cutter.tile(cut), buckets)
        _ledger(writer, "tile", name, rows, cut.labelled, cut.visibility, cut.ignored)
        cutter.rest()
        if cut.split != "train" or cut.scale != 1:
            continue
        for copy in range(oversample.copies(name, sides[cut.labelled], plan.rate)):
            if picture is None:
                whole = Picture(own, cutter.pixels, xyxy, ignore)
                picture = whole.part(region.window_of(image, "train", config.source.held_out), plan.tile.min_visibility)
            extra = {kind: sample_id(own, cut.scale, cut.window, kind, copy) for kind in sample.KINDS}
            kind = sample.kind(extra[sample.MOSAIC], cut.window, config.augment)
            seed = seed_of(extra[kind])
            scene = sample.augment(picture, donors, kind, picture.inside(cut.window), plan.tile, config.augment, seed)
            made = _Made(
                extra[kind], cut, kind, seed, scene.parameters, [name],
                scene.boxes, scene.rows, scene.visibility, scene.ignore, None,
            )  # fmt: skip
            _add(writer, image, all_rows, made, cutter.encode(scene.pixels), buckets)
            _ledger(writer, "augment", extra[kind], all_rows, scene.rows, scene.visibility, scene.ignored)
