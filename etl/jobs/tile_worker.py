"""The tile stage of one part of a dataset: read images, make their samples, write them below the part's URI."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from etl.config import Config
from etl.errors import StoreError
from etl.execution import malloc
from etl.imaging import lossless
from etl.imaging.codec import Pixels
from etl.imaging.image_file import ImageFile
from etl.jobs.sample_cache import unit_of
from etl.jobs.sample_writer import SampleWriter, SourceObjects
from etl.plan import Plan
from etl.sources.images import applied_orientation, read_image, read_image_file, unchanged
from etl.stages.augment.donor_reader import DonorReader, DonorTables
from etl.stages.augment.donors import SETS
from etl.stages.augment.labelled_image import train_region
from etl.stages.encode import TileEncoder
from etl.stages.image_annotations import AnnotatedImages, ImageAnnotations
from etl.stages.rows import ImageRow
from etl.stages.samples import augmented_samples, base_samples
from etl.storage import shard, store

_BLOCK_COLUMNS = ("offset", "size", "sha256")


@dataclass(frozen=True)
class TilePart:
    """Some images with the boxes that reach the tile stage, to be made into samples below `uri`."""

    config: Config
    plan: Plan
    uri: str
    images: pa.Table
    annotations: pa.Table
    donors: DonorTables
    units: frozenset[str]  # to make, see etl.jobs.sample_cache


def tile_part(part: TilePart) -> bool:
    """Write `<uri>.tar`, `<uri>.ledger.parquet` and last `<uri>.samples.parquet`; False if they were complete."""
    if _is_complete(part.uri):
        return False
    lossless.check_codec(part.plan.codec)
    malloc.tune()

    def read_pixels(image: ImageRow) -> Pixels:
        return read_image(part.config, image, part.plan.pixel_range, applied_orientation(image))

    donor_reader = DonorReader(part.donors, read_pixels)
    with store.open_atomic(f"{part.uri}.tar", durable=False) as file:
        writer = SampleWriter(file)
        for annotated in AnnotatedImages(part.images, part.annotations).values():
            _write_samples(part, annotated, donor_reader, writer)
    store.write_table(f"{part.uri}.ledger.parquet", writer.ledger_table(), durable=False)
    store.write_table(f"{part.uri}.samples.parquet", writer.index_table(), durable=False)
    malloc.trim()
    return True


def _is_complete(uri: str) -> bool:
    """Return whether an earlier attempt wrote the whole part; files may be truncated if the machine failed."""
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
        for start, size, sha256 in zip(*(samples[name].to_pylist() for name in _BLOCK_COLUMNS), strict=True)
    )


def _write_samples(
    part: TilePart, annotated: ImageAnnotations, donor_reader: DonorReader, writer: SampleWriter
) -> None:
    """Write the samples of an image unit by unit, so that the pixels of few donors are in memory at once."""
    config, plan, image = part.config, part.plan, annotated.image
    file = read_image_file(config, image, plan.pixel_range)
    with unchanged(config, image, file):
        _write_samples_of(part, annotated, file, donor_reader, writer)


def _write_samples_of(
    part: TilePart, annotated: ImageAnnotations, file: ImageFile, donor_reader: DonorReader, writer: SampleWriter
) -> None:
    config, plan, image = part.config, part.plan, annotated.image
    name, held_out = image["image_id"], config.source.held_out
    base = base_samples(annotated, plan, held_out)
    is_base_made = unit_of(name, None) in part.units
    tiles = [sample.tile for sample in base] if is_base_made else []
    encoder = TileEncoder(file, applied_orientation(image), name=plan.codec, quality=config.shard.quality, tiles=tiles)
    if is_base_made:
        objects = SourceObjects(rows=annotated.rows, sides=annotated.sides)
        for sample in base:
            writer.add(sample, encoder.encode_tile(sample.tile), objects)
            encoder.release()
    own = cache(lambda: train_region(annotated, encoder.pixels, plan.tile.min_visibility, held_out))
    for number in range(SETS):
        if unit_of(name, number) not in part.units:
            continue
        objects = SourceObjects(
            rows=[*annotated.rows, *donor_reader.rows(name, number)],
            sides=np.concatenate([annotated.sides, donor_reader.sides(name, number)]),
        )
        donors = donor_reader.images(name, number, len(annotated.rows))
        for sample in base:
            for augmented, pixels in augmented_samples(sample, annotated, own, donors, number, plan, config.augment):
                writer.add(augmented, encoder.encode(pixels), objects)
                encoder.release()
