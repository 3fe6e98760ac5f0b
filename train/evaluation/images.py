"""The images that a detector is evaluated on: window, ground truth and pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from etl import boxes
from etl.config import Config
from etl.errors import SourceError
from etl.imaging import codec
from etl.imaging.wide import PixelSettings
from etl.plan import Window
from etl.sources.images import image_file
from train.detections import EVERY_CATEGORY, GroundTruth

_CURE = "restore it, or run `speck build` and evaluate on the new snapshot"


@dataclass(frozen=True, eq=False)
class EvalImage:
    """An image to evaluate on, with its ground truth in pixels of the window."""

    image_id: str
    path: str
    image_wh: tuple[int, int]
    window: Window  # the part that belongs to the split: of a divided image a region, else the whole image
    orientation: int  # EXIF, to decode it with
    truth: GroundTruth
    sha256: str | None = None  # of the file when the snapshot was built; None: not checked
    annotation_ids: tuple[str, ...] = ()  # of the boxes in `truth`

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height of the window."""
        return self.window.x1 - self.window.x0, self.window.y1 - self.window.y0


def build_eval_images(images: pa.Table, truth: pa.Table, categories: Sequence[str]) -> list[EvalImage]:
    """Return the images in their order with their boxes; a box of none of the categories becomes an ignore region."""
    every = _ground_truth(truth, categories)
    rows: dict[str, list[int]] = {image_id: [] for image_id in images["image_id"].to_pylist()}
    inside = boxes.area(every.xyxy) > 0
    ids = truth["annotation_id"].to_pylist()
    for row, image_id in enumerate(truth["image_id"].to_pylist()):
        if inside[row]:
            rows[image_id].append(row)
    return [
        EvalImage(
            image["image_id"],
            image["path"],
            (image["width"], image["height"]),
            Window(*(image[side] for side in Window._fields)),
            image["exif_orientation"],
            _take(every, rows[image["image_id"]]),
            image["sha256"],
            tuple(ids[row] for row in rows[image["image_id"]]),
        )
        for image in images.to_pylist()
    ]


def _ground_truth(truth: pa.Table, categories: Sequence[str]) -> GroundTruth:
    """Return the rows of a table of boxes; the area of the box where the label file states none."""
    index = {name: number for number, name in enumerate(categories)}
    xyxy = boxes.from_table(truth)
    ignore, difficult = (np.array(truth[name].to_pylist(), dtype=np.bool_) for name in ("ignore", "difficult"))
    category = np.array([index.get(name, EVERY_CATEGORY) for name in truth["category"].to_pylist()], dtype=np.int64)
    area = np.array(truth["area"].to_pylist(), dtype=np.float64)  # null becomes NaN
    area = np.where(np.isnan(area), boxes.area(xyxy), area)
    return GroundTruth(xyxy, category, area, ignore | (category == EVERY_CATEGORY), difficult)


def _take(truth: GroundTruth, rows: Sequence[int]) -> GroundTruth:
    index = np.array(rows, dtype=np.int64)
    return GroundTruth(
        truth.xyxy[index], truth.category[index], truth.area[index], truth.ignore[index], truth.difficult[index]
    )


def read_pixels(config: Config, image: EvalImage, settings: PixelSettings) -> codec.Pixels:
    """Return the window of an image [H, W, 3], upright.

    SourceError when the image cannot be read or its file is not the one that the snapshot was built from.
    """
    file = image_file(config, image.path, settings)
    try:
        pixels = file.pixels(image.orientation)
    except codec.UnreadableImageError as error:
        raise SourceError(f"{image.path}: {error}") from error
    width, height = pixels.shape[1], pixels.shape[0]
    if (width, height) != image.image_wh:
        built_width, built_height = image.image_wh
        raise SourceError(
            f"{image.path}: the image size changed since the build: was {built_width} x {built_height}, "
            f"now {width} x {height}; {_CURE}"
        )
    if image.sha256 not in (None, file.sha256):
        raise _changed(image)
    x0, y0, x1, y1 = image.window
    return pixels[y0:y1, x0:x1]


def check_unchanged(config: Config, images: Iterable[EvalImage], settings: PixelSettings) -> None:
    """Raise SourceError for the first image whose file is not the one that the snapshot was built from."""
    for image in images:
        if image.sha256 not in (None, image_file(config, image.path, settings).sha256):
            read_pixels(config, image, settings)  # its error names what has changed
            raise _changed(image)


def _changed(image: EvalImage) -> SourceError:
    return SourceError(
        f"{image.path}: the file changed since the build, its labels may be those of another image; {_CURE}"
    )
