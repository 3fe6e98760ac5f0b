"""The views of an image: windows resized to network pixels, with as little padding as the network needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import cv2
import numpy as np

from etl.boxes import clip
from etl.imaging.codec import Pixels
from etl.plan import Window
from train.detections import Detections
from train.prediction.rows import Rows

if TYPE_CHECKING:
    from train.models.model import Model

Shape = tuple[int, int, int]
_GREY = 114  # padding, as in training


@dataclass(frozen=True, eq=False)
class View:
    """A window of an image [H, W, 3] as the network sees it; its pixels are cut when they are needed."""

    image: Pixels
    window: Window  # in source pixels
    ratio: float  # network pixels per source pixel
    shape: Shape  # in network pixels, padding on the right and at the bottom included

    def write_to(self, pixels: Pixels) -> None:
        """Write the view into an array of its shape."""
        width, height = _network_wh(self.window, self.ratio)
        padded_height, padded_width, _ = self.shape
        cut = self.image[self.window.y0 : self.window.y1, self.window.x0 : self.window.x1]
        inside = pixels[:height, :width]
        if (width, height) == (cut.shape[1], cut.shape[0]):
            inside[:] = cut[:padded_height, :padded_width]
        else:
            method = cv2.INTER_AREA if self.ratio < 1 else cv2.INTER_LINEAR
            fits = inside.shape == (height, width, 3)
            resized = cv2.resize(cut, (width, height), dst=inside if fits else None, interpolation=method)
            if not fits:
                inside[:] = resized[:padded_height, :padded_width]
        pixels[height:] = _GREY
        pixels[:height, width:] = _GREY

    def to_source(self, rows: Rows) -> Detections:
        """Return the rows of the view as detections in source pixels, clipped to the window."""
        width, height = _network_wh(self.window, self.ratio)
        window = self.window
        factor = np.array([(window.x1 - window.x0) / width, (window.y1 - window.y0) / height] * 2)
        origin = np.array([window.x0, window.y0] * 2)
        xyxy = clip(rows[:, :4] * factor + origin, window)
        valid = np.isfinite(rows).all(axis=1) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        rows, xyxy = rows[valid], xyxy[valid]
        windows = np.tile(np.array(window, dtype=np.float64), (len(rows), 1))
        grain = np.full(len(rows), max(1 / self.ratio, 1.0))
        return Detections(xyxy, rows[:, 4], rows[:, 5].astype(np.int64), windows, grain)


def whole_view(image: Pixels) -> View:
    """Return the view of an image pixel by pixel; its sides are multiples of the model's stride."""
    height, width, _ = image.shape
    return View(image, Window(0, 0, width, height), 1.0, (height, width, 3))


def cut_view(model: Model, image: Pixels, window: Window, ratio: float) -> View:
    """Return the view of a window resized by a ratio and padded as the model needs it."""
    width, height = _network_wh(window, ratio)
    side = _round_up(model.image_size, model.stride)
    padded_width, padded_height = (
        side if model.square else min(_round_up(length, model.stride), side) for length in (width, height)
    )
    return View(image, window, ratio, (padded_height, padded_width, 3))


def _round_up(length: int, stride: int) -> int:
    """Return the smallest multiple of the stride that is at least the length."""
    return ceil(length / stride) * stride


def _network_wh(window: Window, ratio: float) -> tuple[int, int]:
    width, height = window.x1 - window.x0, window.y1 - window.y0
    return max(1, round(width * ratio)), max(1, round(height * ratio))
