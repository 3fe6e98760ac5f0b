"""Close-ups of suspects: the pixels around each, with the labels that lie there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import cv2
import numpy as np

from etl import boxes
from etl.imaging import codec
from etl.review import Box
from train.evaluation.images import EvalImage
from train.label_errors.suspects import Suspect
from train.prediction.drawing import close_up_window

MOST = 500  # close-ups of a page
MOST_BYTES = 3_000_000  # of all of them; as text on the page a third more
_WH = (320, 240)  # px; a window of fewer source pixels is stored as it is, and enlarged by the browser
_QUALITY = 88
_SAME = 0.02  # px, between the corners of a suspect's own label and those of the label in the ground truth

ImageKey = tuple[str, str]  # id and split: a divided image has a window in several splits


class CloseUp(NamedTuple):
    """A part of an image, in source pixels of the whole image."""

    jpeg: bytes
    window: tuple[int, int, int, int]
    labels: tuple[tuple[str, Box], ...]  # class and box of the other labels in the window


def take_close_ups(
    suspects: Sequence[Suspect],
    images: Mapping[ImageKey, EvalImage],
    categories: Sequence[str],
    read: Callable[[EvalImage], codec.Pixels],
) -> dict[str, CloseUp]:
    """Return the close-ups of the first suspects, by suspect id, as many as a page can hold.

    `read` returns the pixels of an image's window; every image is read once.
    """

    def key_of(suspect: Suspect) -> ImageKey:
        return suspect.image_id, suspect.split

    taken: dict[str, CloseUp] = {}
    for key, of_image in groupby(sorted(suspects[:MOST], key=key_of), key=key_of):
        image = images[key]
        pixels = read(image)
        taken |= {suspect.suspect_id: _take(suspect, image, pixels, categories) for suspect in of_image}
    total, kept = 0, {}
    for suspect in suspects[:MOST]:
        total += len(taken[suspect.suspect_id].jpeg)
        if total > MOST_BYTES:
            break
        kept[suspect.suspect_id] = taken[suspect.suspect_id]
    return kept


def _take(suspect: Suspect, image: EvalImage, pixels: codec.Pixels, categories: Sequence[str]) -> CloseUp:
    offset = np.array([image.window.x0, image.window.y0] * 2)
    shown = boxes.as_boxes([suspect.box, suspect.suggested_box or suspect.box]) - offset
    around = (*shown[:, :2].min(axis=0).tolist(), *shown[:, 2:].max(axis=0).tolist())
    window = close_up_window(around, image.wh, _WH)
    x0, y0, x1, y1 = window
    crop = np.ascontiguousarray(pixels[y0:y1, x0:x1])
    factor = min(_WH[0] / (x1 - x0), _WH[1] / (y1 - y0))
    if factor < 1:
        size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    near = boxes.touches(image.truth.xyxy, window)
    own = (np.abs(image.truth.xyxy - shown[0]) < _SAME).all(axis=1) & (suspect.annotation_id is not None)
    labels = tuple(
        (categories[category] if category >= 0 else "", tuple((image.truth.xyxy[row] + offset).tolist()))
        for row, category in enumerate(image.truth.category.tolist())
        if near[row] and not own[row]
    )
    left, top = image.window.x0, image.window.y0
    return CloseUp(codec.encode(crop, _QUALITY), (x0 + left, y0 + top, x1 + left, y1 + top), labels)
