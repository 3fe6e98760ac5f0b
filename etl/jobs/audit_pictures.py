"""The pictures of the audit page, drawn on the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import XYXY, Boxes, as_boxes, corners, from_table
from etl.config import Config
from etl.execution.cluster import Cluster
from etl.findings import Finding
from etl.imaging import close_up, codec
from etl.imaging.codec import Pixels
from etl.imaging.wide import Range
from etl.jobs.parts import BoxIndex, image_count
from etl.sources.images import applied_orientation, read_image
from etl.stages.audit.class_examples import choose_class_examples
from etl.stages.audit.examples import TWO_READINGS, Example, choose_examples, fullest_images
from etl.stages.planning.tile_stats import Tables
from etl.storage.work import WorkDir

_NAMED = ("image_id", "category", *XYXY, "file", "line", "source_id")  # columns of the boxes that findings name
_FULL_SIDE = 560  # px: of images with many boxes, and of an image in two readings
_CLASS_SIDE = 192  # px: of examples of a class
_QUALITY = 80
_MOST_BYTES = 1_000_000  # of all pictures: a third more on the page
_FOR_FINDINGS = 0.7  # of these bytes at most; what they leave is for examples of classes

Picture = tuple[str, bytes]  # caption and JPEG


class Pictures(NamedTuple):
    """The pictures of the page: of each finding by its code, of the fullest images, and of classes by their name."""

    of_findings: Mapping[str, Sequence[Picture]]
    fullest: Sequence[Picture]
    of_classes: Mapping[str, Sequence[Picture]]


@dataclass(frozen=True)
class PicturePart:
    """The pictures to draw of one image."""

    config: Config
    image: Mapping[str, Any]  # row of the table
    examples: tuple[Example, ...]
    written: Boxes  # [N, 4] of the image
    trained: Boxes  # [M, 4] of the image
    value_range: Range | None  # of images of more than 8 bits

    @property
    def images(self) -> Sequence[Mapping[str, Any]]:
        """The one image."""
        return (self.image,)


def draw_pictures(
    work: WorkDir,
    cluster: Cluster,
    findings: Sequence[Finding],
    trained: Tables,
    written: BoxIndex,
) -> Pictures:
    """Return pictures of the images and boxes that findings name, of the fullest images, and examples of each class.

    `trained` are the boxes that are trained, `written` those of the label files. What exceeds the size of a page is
    left out, later examples and rarer classes first.
    """
    chosen = [
        *fullest_images(trained.images, (boxes for _, boxes in trained.pieces())),
        *choose_examples(findings, trained.images, work.read_pieces("ingest", "annotations", _NAMED)),
    ]
    of_class = choose_class_examples(trained)
    parts = _parts(work, [*chosen, *chain(*of_class.values())], trained, written)
    drawn = cluster.map(draw_examples, parts, label="audit pictures", images=image_count)
    pictures = {
        example: (example.caption, data)
        for part, of_image in zip(parts, drawn, strict=True)
        for example, data in zip(part.examples, of_image, strict=True)
    }
    of_findings: dict[str, list[Picture]] = {"": []}
    shown = _within(_FOR_FINDINGS * _MOST_BYTES, [[pictures[example]] for example in chosen])
    for example, (picture,) in zip(chosen, shown, strict=False):
        of_findings.setdefault(example.code, []).append(picture)
    room = _MOST_BYTES - sum(len(data) for of_code in of_findings.values() for _, data in of_code)
    classes = _within(room, [[pictures[example] for example in examples] for examples in of_class.values()])
    return Pictures(of_findings, of_findings.pop(""), dict(zip(of_class, classes, strict=False)))


def _within(room: float, sets: Iterable[list[Picture]]) -> Iterator[list[Picture]]:
    """Yield the first sets of pictures that together have at most so many bytes."""
    for pictures in sets:
        room -= sum(len(data) for _, data in pictures)
        if room < 0:
            return
        yield pictures


def _parts(work: WorkDir, examples: Iterable[Example], trained: Tables, written: BoxIndex) -> list[PicturePart]:
    """Return the examples image by image, so that each image is read once."""
    by_image: dict[str, list[Example]] = {}
    for example in examples:
        by_image.setdefault(example.image["image_id"], []).append(example)
    pictured = trained.images.filter(pc.is_in(trained.images["image_id"], pa.array(by_image, pa.string())))
    drawn, used = (_boxes_by_image(source.boxes_of(pictured), by_image) for source in (written, trained))
    return [
        PicturePart(work.config, own[0].image, tuple(own), drawn[name], used[name], work.pixel_range)
        for name, own in by_image.items()
    ]


def _boxes_by_image(boxes: pa.Table, images: Iterable[str]) -> dict[str, Boxes]:
    return {name: from_table(boxes.filter(pc.equal(boxes["image_id"], name))) for name in images}


def draw_examples(part: PicturePart) -> list[bytes]:
    """Return the JPEG of each example of an image."""
    pixels = read_image(part.config, part.image, part.value_range, applied_orientation(part.image))
    return [codec.encode(_draw(part, example, pixels), _QUALITY) for example in part.examples]


def _draw(part: PicturePart, example: Example, pixels: Pixels) -> Pixels:
    if example.code == TWO_READINGS:
        return _both_readings(part)
    if example.box is not None and example.code:
        return close_up.close_up(pixels, part.written, corners(example.box))
    if example.box is not None:
        return close_up.close_up(pixels, as_boxes([]), corners(example.box), _CLASS_SIDE)
    if example.code:
        return close_up.overview(pixels, part.written, close_up.SIDE)
    return close_up.overview(pixels, part.trained, _FULL_SIDE)


def _both_readings(part: PicturePart) -> Pixels:
    """Return a rotated image with its boxes, left, and the image as stored with the boxes as they would lie there."""
    own_wh = np.array([part.image["width"], part.image["height"]] * 2, dtype=np.float64)
    panels = []
    for applied in (part.image["exif_orientation"], 1):
        pixels = read_image(part.config, part.image, part.value_range, applied)
        wh = np.array([pixels.shape[1], pixels.shape[0]] * 2, dtype=np.float64)
        shares = part.config.source.format == "yolo"  # of the sides; other formats have pixels
        boxes = part.written * wh / own_wh if shares else part.written
        panels.append(close_up.overview(pixels, boxes, _FULL_SIDE // 2))
    height = max(panel.shape[0] for panel in panels)
    filled = [np.pad(panel, ((0, height - panel.shape[0]), (0, 4), (0, 0)), constant_values=255) for panel in panels]
    return np.hstack(filled)
