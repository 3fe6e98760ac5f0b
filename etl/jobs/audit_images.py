"""What the audit measures of the images themselves: quality and objects of a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import from_table
from etl.config import Config
from etl.findings import EXAMPLES
from etl.ids import fraction
from etl.imaging import codec, lossless
from etl.imaging.image_file import ImageFile
from etl.imaging.wide import Range
from etl.schema import place
from etl.sources.images import applied_orientation, read_image_file, unchanged
from etl.stages.audit import image_quality
from etl.stages.audit.class_similarity import Descriptor, describe_objects, lowest_ranks
from etl.stages.audit.counts import Summary
from etl.stages.audit.tally import Key
from etl.stages.image_annotations import boxes_of

_IMAGES_PER_PART = 4

Row = Mapping[str, Any]  # of the images or annotations table


@dataclass(frozen=True)
class PixelPart:
    """Some images to be measured at full size, and a table that contains their usable boxes."""

    config: Config
    images: pa.Table
    annotations: pa.Table
    value_range: Range | None = None  # of images of more than 8 bits


def sample_images(images: pa.Table) -> pa.Table:
    """Return a fixed sample of the images."""
    order = np.argsort([fraction(f"quality/{name}") for name in images["image_id"].to_pylist()], kind="stable")
    return images.take(pa.array(np.sort(order[: image_quality.SAMPLE])))


def pixel_parts(
    config: Config, images: pa.Table, annotations: pa.Table, value_range: Range | None = None
) -> list[PixelPart]:
    """Return images with their boxes in parts."""
    pieces = (images.slice(start, _IMAGES_PER_PART) for start in range(0, images.num_rows, _IMAGES_PER_PART))
    return [PixelPart(config, piece, boxes_of(piece, annotations), value_range) for piece in pieces]


def measure_pixels(part: PixelPart) -> dict[str, Summary]:
    """Return, by image_id, the quality counts of each image and the descriptors of its objects."""
    return {image["image_id"]: _measure(part, image) for image in part.images.to_pylist()}


def _measure(part: PixelPart, image: Row) -> Summary:
    """Return what is measured of one image; nothing of a very large one."""
    file = read_image_file(part.config, image, part.value_range)
    if file.is_large:
        return Summary()
    with unchanged(part.config, image, file):
        return _measure_file(part, image, file)


def _measure_file(part: PixelPart, image: Row, file: ImageFile) -> Summary:
    counts: Counter[Key] = Counter()
    pixels = file.pixels(applied_orientation(image))
    luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if image_quality.is_upright_jpeg(image):
        counts["can_be_cut", int(lossless.can_be_cut(file.data))] += 1
    quantisation = None if file.is_on_disk else codec.luminance_table(file.data)
    jpeg_quality = None if quantisation is None else image_quality.estimate_jpeg_quality(quantisation)
    annotations = part.annotations.filter(pc.equal(part.annotations["image_id"], image["image_id"]))
    objects = _every_nth(annotations, image_quality.MOST)
    boxes = from_table(objects)
    quality = image_quality.measure_quality(luma, boxes, jpeg_quality)
    counts.update(image_quality.count_quality(quality))
    files: dict[str, tuple[str, ...]] = {code: (image["path"],) for code, faulty in quality.faults.items() if faulty}
    if quality.faint.any():
        files["faint_objects"] = _places(objects.filter(pa.array(quality.faint)), image)
    described = describe_objects(pixels, boxes, objects["annotation_id"].to_pylist(), image["image_id"])
    descriptors: dict[str, list[Descriptor]] = {}
    for category, descriptor in zip(objects["category"].to_pylist(), described, strict=True):
        if descriptor is not None:
            descriptors.setdefault(category, []).append(descriptor)
    return Summary(dict(counts), files, descriptors={name: lowest_ranks(rows) for name, rows in descriptors.items()})


def _places(boxes: pa.Table, image: Row) -> tuple[str, ...]:
    """Return the first places of boxes of an image, as many as a finding names."""
    rows = boxes.select(["file", "line", "source_id"]).slice(0, EXAMPLES).to_pylist()
    return tuple(place(row["file"], row["line"], image["path"], row["source_id"]) for row in rows)


def _every_nth(annotations: pa.Table, most: int) -> pa.Table:
    step = -(-annotations.num_rows // most) or 1
    return annotations.take(pa.array(np.arange(0, annotations.num_rows, step)))
