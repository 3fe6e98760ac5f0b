"""A source image with its boxes, and which of its objects can be pasted into other images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx, region
from etl.imaging.codec import Pixels
from etl.plan import Window
from etl.stages.image_annotations import ImageAnnotations

MARGIN = 2  # px of background copied around an object
MIN_SIDE = 3.75  # px: smaller objects are not copied
_CHUNK = 64  # boxes compared at once


@dataclass(frozen=True)
class LabelledImage:
    """A source image, or a crop of it, with its boxes."""

    image_id: str
    pixels: Pixels  # [H, W, 3]
    boxes: bx.Boxes  # [N, 4] pixels of this image
    ignore: NDArray[np.bool_]  # [N] true: not a label
    first: int = 0  # row of its first box when the boxes of several images are numbered consecutively
    corner: tuple[int, int] = (0, 0)  # x, y of a crop in the source image

    def crop(self, window: Window, min_visibility: float) -> LabelledImage:
        """Return the part of the image in a window; the image itself where the window covers it.

        A box of which less than `min_visibility` lies in the window is not a label there.
        """
        height, width = self.pixels.shape[:2]
        x0, y0, x1, y1 = window
        if (x1 - x0, y1 - y0) == (width, height):
            return self
        visibility = bx.visibility(bx.clip(self.boxes, (0, 0, width, height)), window)
        boxes, ignore = bx.to_window(self.boxes, window, 1.0), self.ignore | (visibility < min_visibility)
        return LabelledImage(self.image_id, self.pixels[y0:y1, x0:x1], boxes, ignore, self.first, (x0, y0))

    def to_local(self, window: Window) -> Window:
        """Return a window of the source image in pixels of this crop."""
        x, y = self.corner
        return Window(window.x0 - x, window.y0 - y, window.x1 - x, window.y1 - y)

    @cached_property
    def pasteable(self) -> NDArray[np.int64]:
        """The rows of the small labels that lie whole in the image, without another box within their margin."""
        height, width = self.pixels.shape[:2]
        boxes, room = self.boxes, MARGIN + 1
        inside = (boxes[:, :2] >= room).all(1) & (boxes[:, 2] <= width - room) & (boxes[:, 3] <= height - room)
        small = (bx.side_length(boxes) < bx.SMALL) & (bx.size(boxes) >= MIN_SIDE).all(1)
        rows = np.flatnonzero(inside & small & ~self.ignore)
        return rows[_isolated(boxes, rows, room)]

    @cached_property
    def pasteable_sizes(self) -> NDArray[np.int64]:
        """The size buckets of `pasteable`."""
        return bx.bucket(bx.side_length(self.boxes[self.pasteable]))


def train_region(
    annotated: ImageAnnotations, pixels: Pixels, min_visibility: float, held_out: tuple[float, float] | None
) -> LabelledImage:
    """Return the part of an image that belongs to the train split, with its boxes; `held_out` as in `etl.region`."""
    image = LabelledImage(annotated.image["image_id"], pixels, annotated.boxes, annotated.ignore)
    return image.crop(region.window_of(annotated.image, "train", held_out), min_visibility)


def _isolated(boxes: bx.Boxes, rows: NDArray[np.int64], room: float) -> NDArray[np.bool_]:
    """Return which of the rows have no other box within `room` pixels; boxes are compared _CHUNK at a time."""
    isolated = np.ones(rows.size, dtype=np.bool_)
    order = np.argsort(boxes[rows, 0], kind="stable")
    for start in range(0, rows.size, _CHUNK):
        chunk = order[start : start + _CHUNK]
        enlarged = boxes[rows[chunk]] + np.array([-room, -room, room, room])
        near = np.flatnonzero((boxes[:, 0] < enlarged[:, 2].max()) & (boxes[:, 2] > enlarged[:, 0].min()))
        shared = bx.intersection(enlarged, boxes[near])
        shared[near[None, :] == rows[chunk][:, None]] = 0
        isolated[chunk] = shared.max(axis=1, initial=0) == 0
    return isolated
