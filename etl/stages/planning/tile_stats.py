"""Every tile that a cut makes of a dataset, counted without a pixel read."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes, region, schema
from etl.ids import sample_id
from etl.plan import TilePlan, Window
from etl.stages import tile as tiling

log = logging.getLogger("speck")

_PROGRESS_SECONDS = 8.0


class Tables(NamedTuple):
    """The images of every split and the boxes that go on to tiling."""

    images: pa.Table
    annotations: pa.Table


class LabelledTile(NamedTuple):
    """A train tile with labels."""

    name: str
    image: str
    window: Window
    scale: float
    sides: NDArray[np.float64]  # of its labels, in source pixels
    pixels: int


class EmptyTile(NamedTuple):
    """A train tile without labels."""

    name: str
    near: bool  # an object, or far from any
    pixels: int


class Survey:
    """The tiles of every image, and how its objects fare in them."""

    def __init__(self, tables: Tables, cut: TilePlan, held_out: tuple[float, float] | None) -> None:
        """Take the images and their boxes; `held_out` are the shares of val and test."""
        self.held_out: Counter[str] = Counter()  # tiles of val and test
        self.labelled: list[LabelledTile] = []
        self.empty: list[EmptyTile] = []
        self.sizes = np.zeros(len(boxes.BUCKETS))  # labels of train tiles by size
        self.objects = self.whole = 0  # objects to be found, and those whole in a tile
        for image, xyxy, ignore in _with_boxes(*tables):
            self._add(image, region.regions_of(image, held_out), xyxy, ignore, cut)

    def _add(
        self,
        image: Mapping[str, Any],
        regions: Sequence[region.Region],
        xyxy: boxes.Boxes,
        ignore: NDArray[np.bool_],
        cut: TilePlan,
    ) -> None:
        wh = image["width"], image["height"]
        sides = boxes.side_length(boxes.clip(xyxy, (0, 0, *wh)))
        whole = np.zeros(len(xyxy), dtype=np.bool_)
        for tile in tiling.tiles(wh, xyxy, ignore, cut, regions):
            whole[tile.labelled[tile.visibility >= 1]] = True
            if tile.split != "train":
                self.held_out[tile.split] += 1
                continue
            name = sample_id(image["image_id"], tile.scale, tile.window, schema.BASE, 0)
            pixels = tile.size_wh[0] * tile.size_wh[1]
            if tile.labelled.size:
                mine = sides[tile.labelled]
                self.labelled.append(LabelledTile(name, image["image_id"], tile.window, tile.scale, mine, pixels))
                self.sizes += histogram(mine)
            else:
                self.empty.append(EmptyTile(name, tile.near, pixels))
        wanted = ~ignore & (sides > 0)
        self.objects += int(wanted.sum())
        self.whole += int(whole[wanted].sum())

    @property
    def giving(self) -> list[LabelledTile]:
        """The tiles that may give augmented samples."""
        return [tile for tile in self.labelled if tile.scale == 1]

    def empty_names(self, *, near: bool) -> list[str]:
        """The ids of the empty train tiles near objects, or far from any."""
        return [tile.name for tile in self.empty if tile.near == near]


def histogram(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number [5] of boxes of each size bucket, by their sides sqrt(w * h)."""
    return np.bincount(boxes.bucket(sides), minlength=len(boxes.BUCKETS)).astype(np.float64)


def _with_boxes(
    images: pa.Table, annotations: pa.Table
) -> Iterator[tuple[dict[str, Any], boxes.Boxes, NDArray[np.bool_]]]:
    """Yield each image's row with its boxes [N, 4] and which of them are ignored [N]."""
    corners = boxes.from_table(annotations)
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool)
    rows: dict[str, list[int]] = {}
    for number, image in enumerate(annotations["image_id"].to_pylist()):
        rows.setdefault(image, []).append(number)
    start = said = time.monotonic()
    for done, image in enumerate(images.select(["image_id", "width", "height", "split"]).to_pylist()):
        if (now := time.monotonic()) - said >= _PROGRESS_SECONDS:
            left = (now - start) / done * (images.num_rows - done)
            log.info("plan: %d of %d images, %.0f s left", done, images.num_rows, left)
            said = now
        mine = rows.get(image["image_id"], [])
        yield image, corners[mine], ignore[mine]
