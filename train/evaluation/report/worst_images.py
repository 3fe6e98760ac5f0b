"""The images with the most errors, each as two pictures side by side: the labels, and the detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etl import boxes
from etl.boxes import Boxes
from etl.imaging.codec import Pixels
from etl.numbers import count, count_of
from train.detections import Detections
from train.evaluation.images import EvalImage
from train.evaluation.report.examples import WORST, Picture
from train.metrics import summary
from train.metrics.sized_boxes import Mask
from train.prediction import drawing

_IMAGES = 6
_PICTURE_WH = (400, 300)
_VIEW_WH = (800, 600)  # source pixels: of a larger image the part of this size with the most errors is shown
_GAP = 8  # px between the two pictures


@dataclass(frozen=True, eq=False)
class WorstImage:
    """An image and its errors."""

    image: int  # index
    objects: Boxes  # [N, 4]
    matched: Mask  # [N], by a detection
    detections: Boxes  # [D, 4]
    false: Mask  # [D], false positives

    @property
    def errors(self) -> int:
        """Return the number of unmatched objects and false positives."""
        return int((~self.matched).sum() + self.false.sum())

    @property
    def caption(self) -> str:
        """Return the numbers of errors as text."""
        unmatched, false = int((~self.matched).sum()), int(self.false.sum())
        objects = (
            f"{count(unmatched)} of {count_of(len(self.matched), 'object')} unmatched, " if len(self.matched) else ""
        )
        return f"{objects}{count_of(false, 'false positive')}"


def select_worst(images: Sequence[EvalImage], detections: Sequence[Detections]) -> list[WorstImage]:
    """Return the images with the most unmatched objects and false positives together, at most six."""
    worst = []
    for number, (image, detected) in enumerate(zip(images, detections, strict=True)):
        matches, counted = summary.match(image.truth, detected), image.truth.counted
        shown = ~matches.neutral
        found, false = matches.found[counted], matches.false_positive[shown]
        worst.append(WorstImage(number, image.truth.xyxy[counted], found, detected.xyxy[shown], false))
    worst = sorted((image for image in worst if image.errors), key=lambda image: -image.errors)
    return worst[:_IMAGES]


def draw_worst(
    worst: Sequence[WorstImage], images: Sequence[EvalImage], read: Callable[[EvalImage], Pixels]
) -> list[Picture]:
    """Return a picture of each image."""
    pictures = []
    for one in worst:
        image = images[one.image]
        pictures.append(Picture(WORST, f"{one.caption} · {image.path}", _draw(one, image, read(image))))
    return pictures


def _draw(worst: WorstImage, image: EvalImage, pixels: Pixels) -> Pixels:
    """Return the labels and the detections side by side: unmatched objects and false positives are red."""
    window = _find_window(worst, image.wh)
    sides = (
        (worst.objects, [drawing.GREEN if matched else drawing.RED for matched in worst.matched]),
        (worst.detections, [drawing.RED if false else drawing.BLUE for false in worst.false]),
    )
    left, right = (drawing.draw_close_up(pixels, window, _PICTURE_WH, *side) for side in sides)
    gap = np.full((left.shape[0], _GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _find_window(worst: WorstImage, image_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of the image that holds the most errors whole; the whole image if it is no larger."""
    wrong = np.concatenate([worst.objects[~worst.matched], worst.detections[worst.false]])
    width, height = (min(side, limit) for side, limit in zip(_VIEW_WH, image_wh, strict=True))
    low = (wrong[:, :2] + wrong[:, 2:] - np.array([width, height])) / 2  # a window about each error
    low = np.clip(np.round(low), 0, np.array(image_wh) - np.array([width, height]))
    windows = np.concatenate([low, low + np.array([width, height])], axis=1)
    inside = [int((boxes.visibility(wrong, window) > 1 - 1e-9).sum()) for window in windows[:200]]
    x0, y0, x1, y1 = windows[int(np.argmax(inside))].astype(int).tolist()
    return x0, y0, x1, y1
