"""Close-ups of suspects: the pixels around each, with the labels that lie there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from etl import boxes
from etl.boxes import Boxes
from etl.imaging import codec
from etl.imaging.image_file import reduce
from etl.review import Box
from train.evaluation.images import EvalImage
from train.label_errors.suspects import Suspect
from train.prediction.drawing import close_up_window

MOST = 500  # close-ups of a page
MOST_BYTES = 3_000_000  # of all of them; as text on the page a third more
WH = (320, 240)  # px; a window of fewer source pixels is stored as it is, and enlarged by the browser
QUALITY = 88
_SAME = 0.02  # px, between the corners of a suspect's own label and those of the label in the ground truth

ImageKey = tuple[str, str]  # id and split: a divided image has a window in several splits
Images = Mapping[ImageKey, EvalImage]
ReadPixels = Callable[[EvalImage], codec.Pixels]  # of an image's window


class View(NamedTuple):
    """A suspect in its image; boxes and window are in pixels of the image's window."""

    suspect: Suspect
    image: EvalImage
    pixels: codec.Pixels
    boxes: Boxes  # [1, 4] of the suspect, or [2, 4] with the suggested box
    window: tuple[int, int, int, int]  # what a close-up shows


def views(suspects: Sequence[Suspect], images: Images, read: ReadPixels) -> Iterator[View]:
    """Yield each suspect in its image, image by image: every image is read once."""

    def key_of(suspect: Suspect) -> ImageKey:
        return suspect.image_id, suspect.split

    for key, of_image in groupby(sorted(suspects, key=key_of), key=key_of):
        image = images[key]
        pixels, offset = read(image), [image.window.x0, image.window.y0] * 2
        for suspect in of_image:
            drawn = boxes.as_boxes([suspect.box, *filter(None, [suspect.suggested_box])]) - offset
            around = (*drawn[:, :2].min(axis=0).tolist(), *drawn[:, 2:].max(axis=0).tolist())
            yield View(suspect, image, pixels, drawn, close_up_window(around, image.wh, WH))


class CloseUp(NamedTuple):
    """A part of an image, in source pixels of the whole image."""

    jpeg: bytes
    window: tuple[int, int, int, int]
    labels: tuple[tuple[str, Box], ...]  # class and box of the other labels in the window


def take_close_ups(
    suspects: Sequence[Suspect], images: Images, categories: Sequence[str], read: ReadPixels
) -> dict[str, CloseUp]:
    """Return the close-ups of the first suspects, by suspect id, as many as a page can hold."""
    taken = {view.suspect.suspect_id: _take(view, categories) for view in views(suspects[:MOST], images, read)}
    total, kept = 0, {}
    for suspect in suspects[:MOST]:
        total += len(taken[suspect.suspect_id].jpeg)
        if total > MOST_BYTES:
            break
        kept[suspect.suspect_id] = taken[suspect.suspect_id]
    return kept


def _take(view: View, categories: Sequence[str]) -> CloseUp:
    x0, y0, x1, y1 = view.window
    crop = np.ascontiguousarray(view.pixels[y0:y1, x0:x1])
    factor = min(WH[0] / (x1 - x0), WH[1] / (y1 - y0))
    if factor < 1:
        size = (max(1, round((x1 - x0) * factor)), max(1, round((y1 - y0) * factor)))
        crop = reduce(crop, size)
    truth, left, top = view.image.truth, view.image.window.x0, view.image.window.y0
    near = boxes.touches(truth.xyxy, view.window)
    own = (np.abs(truth.xyxy - view.boxes[0]) < _SAME).all(axis=1) & (view.suspect.annotation_id is not None)
    labels = tuple(
        (categories[category] if category >= 0 else "", tuple((truth.xyxy[row] + [left, top] * 2).tolist()))
        for row, category in enumerate(truth.category.tolist())
        if near[row] and not own[row]
    )
    return CloseUp(codec.encode(crop, QUALITY), (x0 + left, y0 + top, x1 + left, y1 + top), labels)
