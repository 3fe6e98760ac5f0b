"""Draw detections: boxes on an image, and enlarged crops of single objects."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from etl.boxes import Boxes
from etl.imaging.codec import Pixels

Colour = tuple[int, int, int]  # RGB

GREEN: Colour = (52, 199, 89)
RED: Colour = (255, 69, 58)
BLUE: Colour = (64, 156, 255)
PALETTE: tuple[Colour, ...] = (BLUE, (255, 159, 10), GREEN, (191, 90, 242), RED, (255, 214, 10), (100, 210, 255))


def draw_boxes(image: Pixels, xyxy: Boxes, colours: Sequence[Colour], labels: Sequence[str], width: int = 1) -> Pixels:
    """Return a copy of the image with each box outlined just outside its edge, so that small objects stay visible."""
    drawn = np.ascontiguousarray(image).copy()
    outside = 4 * width  # a side this far beyond the image is not drawn
    limit = np.array([image.shape[1], image.shape[0]] * 2) + outside
    for box, colour, label in zip(np.clip(xyxy, -outside, limit), colours, labels, strict=True):
        x0, y0 = (int(side) - 1 for side in np.floor(box[:2]))
        x1, y1 = (int(side) for side in np.ceil(box[2:]))
        cv2.rectangle(drawn, (x0, y0), (x1, y1), colour, width)
        if label:
            cv2.putText(drawn, label, (x0, max(y0 - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return drawn


def close_up_window(box: Sequence[float], image_wh: tuple[int, int], wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the window around a box, with its surroundings, in the aspect ratio of a crop of size wh."""
    scale = max(3 * (box[2] - box[0]) / wh[0], 3 * (box[3] - box[1]) / wh[1], 0.25)  # source pixels per crop pixel
    sides = [min(round(side * scale), limit) for side, limit in zip(wh, image_wh, strict=True)]
    low = [
        round(min(max((box[i] + box[i + 2] - sides[i]) / 2, 0), image_wh[i] - sides[i])) for i in (0, 1)
    ]  # moved inside the image
    return low[0], low[1], low[0] + sides[0], low[1] + sides[1]


def draw_close_up(
    image: Pixels, window: tuple[int, int, int, int], wh: tuple[int, int], xyxy: Boxes, colours: Sequence[Colour]
) -> Pixels:
    """Return the window enlarged to fit into wh, with the boxes (source pixels) outlined."""
    x0, y0, x1, y1 = window
    factor = min(wh[0] / (x1 - x0), wh[1] / (y1 - y0))
    size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST  # enlarged pixels stay the network's, unsmoothed
    resized = cv2.resize(image[y0:y1, x0:x1], size, interpolation=method).astype(np.uint8, copy=False)
    scaled = (xyxy - np.array([x0, y0] * 2)) * factor
    return draw_boxes(resized, scaled, colours, [""] * len(scaled), width=2)
