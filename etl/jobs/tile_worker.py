"""What one worker does with one part of a dataset; results go back small, bytes go to the store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from etl.stages.augment import sample as augment, donor_reader as lending, oversample
from etl import boxes, formats, region, schema
from etl.imaging import codec, lossless
from etl.stages import ingest, tile
from etl.execution import malloc as memory
from etl.jobs import ingest_cache as seen
from etl.storage import shard, store  # fmt: skip
from etl.boxes import Boxes
from etl.config import Config
from etl.stages.encode import Cutter
from etl.errors import SourceError, StoreError
from etl.formats.labels import ImageLabels
from etl.ids import sample_id, seed_of
from etl.imaging.image_file import Original
from etl.stages.augment.labelled_image import Picture
from etl.plan import Plan

BASE = "tile"  # the recipe kind of samples that are plain cut-outs


@dataclass(frozen=True)
class IngestPart:
    """Some images of the source, with their label files (listed path, URI) or their labels already read."""

    config: Config
    images: tuple[str, ...]
    label_files: dict[str, tuple[tuple[str, str], ...]]
    labels: dict[str, tuple[ImageLabels, ...]]
    categories: tuple[str, ...] | None


def ingest_part(part: IngestPart) -> pa.Table:
    """Return the rows for the tables images, annotations, ledger and rejects, image by image."""
    rows = ingest.Rows()
    ends = []
    for path in part.images:
        _ingest_image(part, path, rows)
        ends.append(rows.counts())
    return seen.by_image(part.images, rows, ends)


def _ingest_image(part: IngestPart, path: str, rows: ingest.Rows) -> None:
    try:
        file = Original(store.content(store.join(part.config.source.images, path)))
        found, row = ingest.probe(path, file, part.config.source.max_megapixels)
    except codec.UnreadableImageError as error:
        rows.rejects.append(schema.reject("image", path, error.reason, error.found, error.expected))
        return
    labels = _labels(part, path, found.upright_wh)
    if (contradiction := ingest.settle_size(row, found, labels)) is not None:
        size = f"{row['width']}x{row['height']}"
        rows.rejects.append(schema.reject("image", path, "size_mismatch", size, f"{contradiction}, as its labels say"))
        return
    ingest.add_image(rows, row, labels)


def _labels(part: IngestPart, path: str, upright_wh: tuple[int, int]) -> tuple[ImageLabels, ...]:
    if path in part.labels:
        return part.labels[path]
    reader = formats.reader(part.config.source.format)
    if isinstance(reader, formats.DatasetFormat):
        return ()
    return tuple(
        reader.read_label(store.read_bytes(uri), listed, upright_wh, part.categories)
        for listed, uri in part.label_files.get(path, ())
    )


@dataclass(frozen=True)
class TilePart:
    """Some images with the boxes that go on, to be made into samples below `uri`."""

    config: Config
    plan: Plan
    uri: str
    images: pa.Table
    annotations: pa.Table
    loans: lending.Loans


def tile_part(part: TilePart) -> bool:
    """Write the samples to `<uri>.tar`, `.ledger.parquet` and last `.samples.parquet`; False if they were there."""
    if _is_there(part.uri):
        return False
    lossless.require(part.plan.codec)
    memory.keep_freed()
    lender = lending.Lender(part.loans, lambda image: _read(part.config, image).pixels(_orientation(image)))
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in part.annotations.to_pylist():
        by_image.setdefault(row["image_id"], []).append(row)
    with store.writing(f"{part.uri}.tar", durable=False) as file:
        writer = _SampleWriter(file)
        for image in part.images.to_pylist():
            _make_samples(part, image, by_image.get(image["image_id"], []), lender, writer)
    store.write_table(f"{part.uri}.ledger.parquet", schema.table(schema.LEDGER, writer.ledger), durable=False)
    store.write_table(f"{part.uri}.samples.parquet", writer.table(), durable=False)
    memory.tidy()
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


class _SampleWriter:
    """Writes samples one after the other to a file and gathers their index rows and ledger rows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.rows: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self.ledger: list[dict[str, Any]] = []
        self._offset = 0

    def add(self, row: dict[str, Any], image: bytes) -> None:
        row |= {"size": len(image), "sha256": hashlib.sha256(image).hexdigest(), "offset": self._offset}
        pieces = shard.sample_pieces(row["sample_id"], image, _record(row))
        self._file.writelines(pieces)
        length = sum(map(len, pieces))
        self.rows.append(row)
        self.lengths.append(length)
        self._offset += length

    def table(self) -> pa.Table:
        """The index rows; `offset` and the extra column `length` are those of the sample's tar blocks."""
        return schema.table(schema.SAMPLES, self.rows).append_column("length", pa.array(self.lengths, pa.int64()))


_RECORDED = (
    "sample_id", "split", "image_id", "x0", "y0", "x1", "y1", "scale", "width", "height", "recipe", "boxes", "ignore",
)  # fmt: skip
_to_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def _record(row: dict[str, Any]) -> bytes:
    return _to_json({name: row[name] for name in _RECORDED}).encode()


def _read(config: Config, image: dict[str, Any]) -> Original:
    """Return an image's file; SourceError when it is another than the one its labels were read for."""
    like = image["width"], image["height"], image["format"]
    file = Original(store.content(store.join(config.source.images, image["path"])), like)
    if file.sha256 != image["sha256"]:
        raise SourceError(f"{image['path']}: changed while the build was running; start it again")
    return file


def _orientation(image: dict[str, Any]) -> int:
    return int(image["exif_orientation"]) if image["exif_applied"] else 1


def _make_samples(
    part: TilePart, image: dict[str, Any], rows: lending.Rows, lender: lending.Lender, writer: _SampleWriter
) -> None:
    config, plan, own = part.config, part.plan, image["image_id"]
    file = _read(config, image)
    xyxy, ignore = lending.corners(rows), lending.ignored(rows)
    sides = boxes.side_length(boxes.clip(xyxy, (0, 0, image["width"], image["height"])))
    regions = region.of(image, config.source.split)
    found = tile.tiles((image["width"], image["height"]), xyxy, ignore, plan.tile, regions)
    weights = tile.weights(found, len(rows))
    names = [sample_id(own, cut.scale, cut.window, BASE, 0) for cut in found]
    kept = [
        (name, cut)
        for name, cut in zip(names, found, strict=True)
        if cut.split != "train" or cut.labelled.size or tile.keeps_negative(name, cut.near, plan)
    ]
    tiles = [cut for _, cut in kept]
    cutter = Cutter(file, _orientation(image), name=plan.codec, quality=config.shard.quality, tiles=tiles)
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
                picture = whole.part(region.of_split(image, "train", config.source.split), plan.tile.min_visibility)
            extra = {kind: sample_id(own, cut.scale, cut.window, kind, copy) for kind in augment.KINDS}
            kind = augment.kind(extra[augment.MOSAIC], cut.window, config.augment)
            seed = seed_of(extra[kind])
            scene = augment.augment(picture, donors, kind, picture.inside(cut.window), plan.tile, config.augment, seed)
            made = _Made(
                extra[kind], cut, kind, seed, scene.parameters, [name],
                scene.boxes, scene.rows, scene.visibility, scene.ignore, None,
            )  # fmt: skip
            _add(writer, image, all_rows, made, cutter.encode(scene.pixels), buckets)
            _ledger(writer, "augment", extra[kind], all_rows, scene.rows, scene.visibility, scene.ignored)


@dataclass(frozen=True)
class _Made:
    """A sample before it is written."""

    name: str
    cut: tile.Tile
    kind: str
    seed: int
    parameters: dict[str, Any]
    parents: list[str]
    boxes: Boxes
    rows: Any
    visibility: Any
    ignore: Boxes
    weights: Any | None


def _add(
    writer: _SampleWriter, image: dict[str, Any], rows: list[dict[str, Any]], made: _Made, data: bytes, buckets: Any
) -> None:
    sizes = np.bincount(buckets[made.rows], minlength=len(boxes.BUCKETS))
    x0, y0, x1, y1 = made.cut.window
    width, height = made.cut.size_wh
    writer.add(
        {
            "sample_id": made.name,
            "split": made.cut.split,
            "image_id": image["image_id"],
            "x0": x0, "y0": y0, "x1": x1, "y1": y1,
            "scale": made.cut.scale,
            "width": width,
            "height": height,
            "recipe": {
                "kind": made.kind,
                "seed": made.seed,
                "parameters": json.dumps(made.parameters, sort_keys=True),
                "parents": made.parents,
            },
            "boxes": [
                {
                    **_corners(made.boxes[number]),
                    "category": rows[row]["category"],
                    "annotation_id": rows[row]["annotation_id"],
                    "visibility": float(made.visibility[number]),
                    "weight": None if made.weights is None else float(made.weights[row]),
                }
                for number, row in enumerate(made.rows)
            ],
            "ignore": [_corners(box) for box in made.ignore],
            "counts": dict(zip(boxes.BUCKETS, sizes.tolist(), strict=True)),
        },
        data,
    )  # fmt: skip


def _corners(box: Any) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), (float(side) for side in box), strict=True))


def _ledger(
    writer: _SampleWriter,
    stage: str,
    sample: str,
    rows: list[dict[str, Any]],
    labelled: Any,
    visibility: Any,
    ignored: Any,
) -> None:
    for row, share in zip(labelled, visibility, strict=True):
        rule = "whole" if share >= 1 else "visible"
        writer.ledger.append(
            {**ingest.entry(rows[row]["annotation_id"], stage, "kept", rule, float(share)), "sample_id": sample}
        )
    for row in ignored:
        writer.ledger.append(
            {**ingest.entry(rows[row]["annotation_id"], stage, "ignored", "min_visibility"), "sample_id": sample}
        )
