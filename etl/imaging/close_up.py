"""Pictures of labelled boxes: close-ups that keep the surroundings, and whole images."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from etl.boxes import Boxes, as_boxes, touches
from etl.imaging.codec import Pixels
from etl.imaging.image_file import reduce

SIDE = 280  # px: longer side of a close-up
_AROUND, _LEAST = 3.0, 64  # the side of what it shows: times the box's longer side, and source px at least
_YELLOW, _RED = (255, 214, 10), (255, 60, 60)
_BESIDE, _APART = 1, 3  # px between a box and its line, and the line of the marked box: neither covers it


def close_up(pixels: Pixels, boxes: Boxes, marked: Sequence[float], side: int = SIDE) -> Pixels:
    """Return a box of an RGB image [H, W, 3] with its surroundings, a red line around it and yellow ones around others.

    What is smaller than the picture is enlarged by a whole factor, without smoothing.
    """
    window = _window(marked, (pixels.shape[1], pixels.shape[0]))
    x0, y0, x1, y1 = window.tolist()
    zoom = max(side // max(x1 - x0, y1 - y0), 1)
    part = pixels[y0:y1, x0:x1].repeat(zoom, axis=0).repeat(zoom, axis=1)
    picture, scale = _shrink(part, side)
    offset, scale = np.tile(window[:2], 2), scale * zoom
    _draw(picture, (boxes[touches(boxes, window)] - offset) * scale, _YELLOW, _BESIDE)
    _draw(picture, (as_boxes(marked) - offset) * scale, _RED, _APART)
    return picture


def overview(pixels: Pixels, boxes: Boxes, side: int) -> Pixels:
    """Return an RGB image [H, W, 3] with its boxes, its longer side reduced to a length."""
    picture, scale = _shrink(pixels, side)
    _draw(picture, boxes * scale, _YELLOW, _BESIDE)
    return picture


def _window(box: Sequence[float], size_wh: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the square of pixels x0 y0 x1 y1 around a box, moved and cut to lie in its image."""
    x0, y0, x1, y1 = box
    side = int(np.ceil(max(_AROUND * max(x1 - x0, y1 - y0), _LEAST)))
    limits = np.array(size_wh)
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    low = np.clip(np.floor(middle - side / 2), 0, np.maximum(limits - side, 0)).astype(np.int64)
    return np.concatenate([low, np.minimum(low + side, limits)])


def _shrink(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """Return a writable copy of an image with its longer side at most a length, and the scale."""
    height, width = pixels.shape[:2]
    scale = min(side / max(width, height), 1.0)
    return np.array(reduce(pixels, (max(round(width * scale), 1), max(round(height * scale), 1)))), scale


def _draw(picture: Pixels, boxes: Boxes, colour: tuple[int, int, int], beside: int) -> None:
    """Draw a line around the pixels of each box, at the picture's border where a box reaches beyond it."""
    height, width = picture.shape[:2]
    lines = np.rint(boxes) + np.array([-beside, -beside, beside - 1, beside - 1])
    for x0, y0, x1, y1 in np.clip(lines, 0, [width - 1, height - 1] * 2).astype(int).tolist():
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
