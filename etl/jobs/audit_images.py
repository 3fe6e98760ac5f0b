"""What the audit reads of the images themselves: quality and objects of a sample, and pictures of examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.boxes import Boxes, from_rows, from_table
from etl.config import Config
from etl.ids import fraction
from etl.imaging import codec, lossless
from etl.imaging.codec import Pixels
from etl.imaging.image_file import reduce
from etl.imaging.wide import Range
from etl.jobs.parts import boxes_of
from etl.sources.images import applied_orientation, open_image, pixel_settings, read_image
from etl.stages.audit import image_quality
from etl.stages.audit.class_similarity import Descriptor, describe_objects, lowest_ranks
from etl.stages.audit.counts import Key, Summary
from etl.stages.audit.model import Audit
from etl.storage.work import WorkDir

_IMAGES_PER_PART = 4
_FULL_IMAGES = 3  # pictures of whole images
_FULL_WIDTH = 560  # px
_BOTH_READINGS = 2  # images shown in both readings of their rotation, at most
_CROPS, _CROPS_PER_FINDING = 9, 2  # at most
_AROUND, _LEAST = 3.0, 48.0  # the side of a crop: times the box's longer side, and px at least
_CROP_SIDE = 280  # px of the picture
_YELLOW, _RED = (255, 214, 10), (255, 60, 60)
_SHOWN_FINDINGS = (  # findings of single boxes, most telling first
    "several_classes", "duplicate_boxes", "size_outliers", "shape_outliers", "under_3px", "nested_boxes", "clipped",
    "outside_image", "zero_size",
)  # fmt: skip

Picture = tuple[str, bytes]  # caption and JPEG
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
    header = image["width"], image["height"], image["format"]
    file = open_image(part.config, image["path"], part.value_range, header)
    if file.is_large:
        return Summary()
    counts: Counter[Key] = Counter()
    pixels = file.pixels(applied_orientation(image))
    luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if image_quality.is_upright_jpeg(image):
        counts["can_be_cut", int(lossless.can_be_cut(file.data))] += 1
    quantisation = codec.luminance_table(file.data)
    jpeg_quality = None if quantisation is None else image_quality.estimate_jpeg_quality(quantisation)
    objects = _every_nth(_of_image(part.annotations, image), image_quality.MOST)
    boxes = from_table(objects)
    counts.update(image_quality.count_quality(luma, boxes, jpeg_quality))
    described = describe_objects(pixels, boxes, objects["annotation_id"].to_pylist(), image["image_id"])
    descriptors: dict[str, list[Descriptor]] = {}
    for category, descriptor in zip(objects["category"].to_pylist(), described, strict=True):
        if descriptor is not None:
            descriptors.setdefault(category, []).append(descriptor)
    return Summary(dict(counts), descriptors={name: lowest_ranks(rows) for name, rows in descriptors.items()})


def _every_nth(annotations: pa.Table, most: int) -> pa.Table:
    step = -(-annotations.num_rows // most) or 1
    return annotations.take(pa.array(np.arange(0, annotations.num_rows, step)))


def example_pictures(work: WorkDir, audit: Audit, images: pa.Table, annotations: pa.Table) -> list[Picture]:
    """Return pictures of boxes that findings name, enlarged, and of the images with the most boxes."""
    boxes_of_image = Counter(annotations["image_id"].to_pylist())
    fullest = sorted(images.to_pylist(), key=lambda row: (-boxes_of_image[row["image_id"]], row["path"]))
    by_path = {row["path"]: row for row in fullest}
    doubtful = [by_path[path] for path in _files_of(audit, "unknown_rotation")[:_BOTH_READINGS] if path in by_path]
    rotations = [_both_readings(work, row, annotations) for row in doubtful]
    crops = [_crop(work, *example) for example in _examples(audit, images, annotations)]
    return (
        rotations
        + crops
        + [_full_image(work, row, annotations, boxes_of_image[row["image_id"]]) for row in fullest[:_FULL_IMAGES]]
    )


def _files_of(audit: Audit, code: str) -> tuple[str, ...]:
    return next((row.files for row in audit.findings if row.code == code), ())


def _both_readings(work: WorkDir, image: Row, annotations: pa.Table) -> Picture:
    """Return a rotated image with its boxes, beside the image as stored with the boxes as they would lie there."""
    settings, orientation = pixel_settings(work.config, work.pixel_range), image["exif_orientation"]
    boxes = from_table(_of_image(annotations, image))
    own_wh = np.array([image["width"], image["height"]] * 2, dtype=np.float64)
    panels = []
    for applied in (orientation, 1):
        pixels = read_image(work.config, image["path"], applied, settings)
        wh = np.array([pixels.shape[1], pixels.shape[0]] * 2, dtype=np.float64)
        there = boxes * wh / own_wh if work.config.source.format == "yolo" else boxes  # shares of the sides, or pixels
        panel, scale = _reduced(pixels, _FULL_WIDTH // 2)
        _draw(panel, there * scale, _YELLOW)
        panels.append(panel)
    height = max(panel.shape[0] for panel in panels)
    filled = [np.pad(panel, ((0, height - panel.shape[0]), (0, 4), (0, 0)), constant_values=255) for panel in panels]
    caption = f"unknown_rotation: {image['path']}; left: rotated, right: as stored"
    return caption, codec.encode(np.hstack(filled), 85)


def _reduced(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """Return a writable copy of an image with its longer side reduced to a length, and the scale."""
    height, width = pixels.shape[:2]
    scale = min(side / max(width, height), 1.0)
    return np.array(reduce(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))), scale


def _full_image(work: WorkDir, image: Row, annotations: pa.Table, count: int) -> Picture:
    pixels, boxes = _with_boxes(work, image, annotations)
    scale = min(_FULL_WIDTH / pixels.shape[1], 1.0)
    reduced = reduce(pixels, (max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)))
    _draw(reduced, boxes * scale, _YELLOW)
    return f"{image['path']}: {count} boxes", codec.encode(reduced, 80)


def _examples(audit: Audit, images: pa.Table, annotations: pa.Table) -> list[tuple[str, Row, Row, pa.Table]]:
    """Return code, image, box and the boxes of the same images, for boxes that findings name."""
    places = {row.code: row.files[:_CROPS_PER_FINDING] for row in audit.findings}
    code_of_place = {place: code for code in reversed(_SHOWN_FINDINGS) for place in places.get(code, ())}
    if not code_of_place:
        return []
    by_id = {row["image_id"]: row for row in images.to_pylist()}
    named = annotations.filter(pc.is_in(_places(annotations, images), value_set=pa.array(sorted(code_of_place))))
    of_images = annotations.filter(pc.is_in(annotations["image_id"], value_set=pc.unique(named["image_id"])))
    examples = []
    for row in named.to_pylist():
        image = by_id[row["image_id"]]
        code = code_of_place.pop(_place(row, image), None)
        if code is not None:
            examples.append((code, image, row, of_images))
    return sorted(examples, key=lambda example: _SHOWN_FINDINGS.index(example[0]))[:_CROPS]


def _places(annotations: pa.Table, images: pa.Table) -> pa.ChunkedArray:
    """Return what `schema.place` does for each box, as one column."""
    paths = images["path"].take(pc.index_in(annotations["image_id"], value_set=images["image_id"].combine_chunks()))
    file, line, number = (annotations[name] for name in ("file", "line", "source_id"))
    by_line = pc.binary_join_element_wise(file, line.cast(pa.string()), ":")
    by_id = pc.binary_join_element_wise(file, ": ", paths, " #", number, "")
    return pc.coalesce(by_line, by_id, file)


def _place(box: Row, image: Row) -> str:
    return schema.place(box["file"], box["line"], image["path"], box["source_id"])


def _crop(work: WorkDir, code: str, image: Row, box: Row, annotations: pa.Table) -> Picture:
    pixels, boxes = _with_boxes(work, image, annotations)
    height, width = pixels.shape[:2]
    middle = np.clip([(box["x0"] + box["x1"]) / 2, (box["y0"] + box["y1"]) / 2], 0, (width - 1, height - 1))
    half = max(box["x1"] - box["x0"], box["y1"] - box["y0"], _LEAST / _AROUND) * _AROUND / 2
    x0, y0 = (max(int(low), 0) for low in middle - half)
    x1, y1 = (min(int(high) + 1, limit) for high, limit in zip(middle + half, (width, height), strict=True))
    part = pixels[y0:y1, x0:x1]
    scale = _CROP_SIDE / max(part.shape[:2])
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    picture = np.asarray(cv2.resize(part, size, interpolation=method), dtype=np.uint8)
    _draw(picture, (boxes - (x0, y0, x0, y0)) * scale, _YELLOW)
    own = from_rows([box])
    _draw(picture, (own - (x0, y0, x0, y0)) * scale, _RED)
    where = _place(box, image)
    size_px = f"{box['x1'] - box['x0']:.4g} x {box['y1'] - box['y0']:.4g} px"
    return f"{code}: {box['category']}, {size_px}, {where}", codec.encode(picture, 85)


def _with_boxes(work: WorkDir, image: Row, annotations: pa.Table) -> tuple[Pixels, Boxes]:
    settings = pixel_settings(work.config, work.pixel_range)
    pixels = read_image(work.config, image["path"], applied_orientation(image), settings)
    return pixels, from_table(_of_image(annotations, image))


def _of_image(annotations: pa.Table, image: Row) -> pa.Table:
    return annotations.filter(pc.equal(annotations["image_id"], image["image_id"]))


def _draw(pixels: Pixels, boxes: Boxes, colour: tuple[int, int, int]) -> None:
    for x0, y0, x1, y1 in np.clip(boxes, -1e4, 1e4).round().astype(int).tolist():
        cv2.rectangle(pixels, (x0, y0), (x1, y1), colour, 1)
