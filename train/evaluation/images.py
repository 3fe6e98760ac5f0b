"""An image that was held out, to be judged on: which part of it, what is true of it, and its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from etl import boxes
from etl.config import Config
from etl.errors import SourceError
from etl.imaging import codec
from etl.plan import Window
from etl.sources.images import read_image
from train.detections import EVERY_CATEGORY, GroundTruth


@dataclass(frozen=True, eq=False)
class EvalImage:
    """An image to be judged on, with what is true of it."""

    image_id: str
    path: str
    image_wh: tuple[int, int]
    window: Window  # what of it is judged
    orientation: int  # EXIF, to decode it with
    truth: GroundTruth

    @property
    def wh(self) -> tuple[int, int]:
        """Width and height of what is judged."""
        return self.window.x1 - self.window.x0, self.window.y1 - self.window.y0


def build_eval_images(images: pa.Table, truth: pa.Table, categories: Sequence[str]) -> list[EvalImage]:
    """Return the images in their order with their boxes; ConfigError for an object of none of the categories."""
    index = {name: number for number, name in enumerate(categories)}
    rows: dict[str, list[int]] = {image: [] for image in images["image_id"].to_pylist()}
    for row, image in enumerate(truth["image_id"].to_pylist()):
        rows[image].append(row)
    xyxy = boxes.from_table(truth)
    ignore, difficult = (np.array(truth[name].to_pylist(), dtype=np.bool_) for name in ("ignore", "difficult"))
    category = np.array([index.get(name, EVERY_CATEGORY) for name in truth["category"].to_pylist()], dtype=np.int64)
    area = np.array(truth["area"].to_pylist(), dtype=np.float64)  # null: not said
    area = np.where(np.isnan(area), boxes.area(xyxy), area)
    ignore |= category == EVERY_CATEGORY
    subjects = []
    for image in images.to_pylist():
        mine = np.array(rows[image["image_id"]], dtype=np.int64)
        mine = mine[boxes.area(xyxy[mine]) > 0]  # nothing of the others lies inside the image
        subjects.append(
            EvalImage(
                image["image_id"],
                image["path"],
                (image["width"], image["height"]),
                Window(*(image[side] for side in Window._fields)),
                image["exif_orientation"],
                GroundTruth(xyxy[mine], category[mine], area[mine], ignore[mine], difficult[mine]),
            )
        )
    return subjects


def read_pixels(config: Config, subject: EvalImage) -> codec.Pixels:
    """Return what is judged of a subject's image, upright; SourceError when it is no longer the one of the snapshot."""
    try:
        image = read_image(config, subject.path, subject.orientation)
    except codec.UnreadableImageError as error:
        raise SourceError(f"{subject.path}: {error}") from error
    if (wh := (image.shape[1], image.shape[0])) != subject.image_wh:
        before = " x ".join(map(str, subject.image_wh))
        raise SourceError(f"{subject.path}: now {wh[0]} x {wh[1]} pixels, {before} when built")
    x0, y0, x1, y1 = subject.window
    return image[y0:y1, x0:x1]
