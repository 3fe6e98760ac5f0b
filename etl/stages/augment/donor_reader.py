"""What a part's images borrow from others for their augmented samples: donors' rows, boxes and pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes
from etl.imaging.codec import Pixels
from etl.stages.augment.donors import SLOTS, Donors
from etl.stages.augment.labelled_image import Picture

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Loans:
    """The donors of some images, by image id, with no more of the dataset than those donors' rows and boxes."""

    donors: Donors
    images: pa.Table
    annotations: pa.Table


def loans(donors: Donors, mine: pa.Table, images: pa.Table, annotations: pa.Table) -> Loans:
    """Return what the images of `mine` borrow, of the images and usable boxes of the whole dataset."""
    found = {image: donors[image] for image in mine["image_id"].to_pylist() if image in donors}
    names = pa.array(sorted({name for names in found.values() for name in names}), pa.string())
    return Loans(
        found,
        images.filter(pc.is_in(images["image_id"], names)),
        annotations.filter(pc.is_in(annotations["image_id"], names)),
    )


class Lender:
    """Hands out the donors of one image after the other; `read` returns an image row's pixels, and is asked late."""

    def __init__(self, loans: Loans, read: Callable[[dict[str, Any]], Pixels]) -> None:
        self._donors = loans.donors
        images = self._images = {row["image_id"]: row for row in loans.images.to_pylist()}
        self._boxes: dict[str, Rows] = {}
        for row in loans.annotations.to_pylist():
            self._boxes.setdefault(row["image_id"], []).append(row)

        @lru_cache(maxsize=SLOTS)
        def pixels(image: str) -> Pixels:
            return read(images[image])  # not of `self`, which this would keep alive

        self._pixels = pixels

    def rows(self, image: str) -> Rows:
        """Return the boxes of an image's donors, as they are numbered after the image's own."""
        return [row for name in self._donors.get(image, ()) for row in self._boxes[name]]

    def sides(self, image: str) -> NDArray[np.float64]:
        """Return the side lengths [N] of `rows`, in source pixels inside their images."""
        whole = [self._images[row["image_id"]] for row in self.rows(image)]
        wh = np.array([[row["width"], row["height"]] for row in whole], dtype=np.float64).reshape(-1, 2)
        return boxes.side_length(boxes.clip(boxes.from_rows(self.rows(image)), (0, 0, wh[:, 0], wh[:, 1])))

    def pictures(self, image: str, first: int) -> list[Callable[[], Picture]]:
        """Return an image's donors, each read when it is asked for, their boxes numbered from `first`."""
        found: list[Callable[[], Picture]] = []
        for name in self._donors.get(image, ()):
            found.append(cache(partial(self._picture, name, first)))
            first += len(self._boxes[name])
        return found

    def _picture(self, name: str, first: int) -> Picture:
        rows = self._boxes[name]
        return Picture(name, self._pixels(name), boxes.from_rows(rows), ignored(rows), first)


def ignored(rows: Rows) -> NDArray[np.bool_]:
    """Return which annotation rows [N] are no labels."""
    return np.array([row["ignore"] for row in rows], dtype=bool)
