"""A source image to make samples of, with its boxes, and which of its objects can be copied elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.imaging.codec import Pixels
from etl.plan import Window

MARGIN = 2  # px of surroundings a copied object brings along
MIN_SIDE = 3.75  # px
_CHUNK = 64


@dataclass(frozen=True)
class Picture:
    """A source image to make samples of, with its boxes."""

    image_id: str
    pixels: Pixels  # [H, W, 3]
    boxes: bx.Boxes  # [N, 4] source pixels
    ignore: NDArray[np.bool_]  # [N] no labels
    first: int = 0  # the number of its first box where several pictures' boxes are numbered through
    corner: tuple[int, int] = (0, 0)  # where it lies in the image, x and y

    def part(self, window: Window, min_visibility: float) -> Picture:
        """Return what lies in a window, the picture itself if all of it does.

        A box of which less than `min_visibility` lies in the window is no label there.
        """
        height, width = self.pixels.shape[:2]
        x0, y0, x1, y1 = window
        if (x1 - x0, y1 - y0) == (width, height):
            return self
        seen = bx.visibility(bx.clip(self.boxes, (0, 0, width, height)), window)
        boxes, ignore = bx.to_window(self.boxes, window, 1.0), self.ignore | (seen < min_visibility)
        return Picture(self.image_id, self.pixels[y0:y1, x0:x1], boxes, ignore, self.first, (x0, y0))

    def inside(self, window: Window) -> Window:
        """Return a window of the image in the picture's own pixels."""
        x, y = self.corner
        return Window(window.x0 - x, window.y0 - y, window.x1 - x, window.y1 - y)

    @cached_property
    def pasteable(self) -> NDArray[np.int64]:
        """The rows of the small labels that lie whole in the picture, no other box within their margin."""
        height, width = self.pixels.shape[:2]
        boxes, room = self.boxes, MARGIN + 1
        whole = (boxes[:, :2] >= room).all(1) & (boxes[:, 2] <= width - room) & (boxes[:, 3] <= height - room)
        small = (bx.side_length(boxes) < bx.SMALL) & (bx.size(boxes) >= MIN_SIDE).all(1)
        rows = np.flatnonzero(whole & small & ~self.ignore)
        return rows[_alone(boxes, rows, room)]

    @cached_property
    def pasteable_sizes(self) -> NDArray[np.int64]:
        """The size buckets of `pasteable`."""
        return bx.bucket(bx.side_length(self.boxes[self.pasteable]))


def _alone(boxes: bx.Boxes, rows: NDArray[np.int64], room: float) -> NDArray[np.bool_]:
    """Return which of the rows have no other box within `room` pixels, some neighbours at a time."""
    alone = np.ones(rows.size, dtype=np.bool_)
    order = np.argsort(boxes[rows, 0], kind="stable")
    for start in range(0, rows.size, _CHUNK):
        some = order[start : start + _CHUNK]
        mine = boxes[rows[some]] + np.array([-room, -room, room, room])
        near = np.flatnonzero((boxes[:, 0] < mine[:, 2].max()) & (boxes[:, 2] > mine[:, 0].min()))
        shared = bx.intersection(mine, boxes[near])
        shared[near[None, :] == rows[some][:, None]] = 0
        alone[some] = shared.max(axis=1, initial=0) == 0
    return alone
