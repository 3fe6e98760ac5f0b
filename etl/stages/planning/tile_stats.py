"""Statistics of every tile that a plan makes of a dataset, from the tables alone."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes, region, schema
from etl.columns import as_flags, find_places, group_rows
from etl.ids import sample_id
from etl.numbers import count, count_of
from etl.plan import TilePlan, Window
from etl.stages.rows import ImageRow
from etl.stages.tile import cut_tiles

log = logging.getLogger("speck")

_IMAGES_AT_ONCE = 40  # whose boxes are in memory
_PROGRESS_SECONDS = 8.0  # between two log lines


class Tables(NamedTuple):
    """The images of every split, and how the boxes that reach the tile stage are read."""

    images: pa.Table
    boxes_of: Callable[[pa.Table], pa.Table]  # returns the boxes of some images

    def pieces(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield the images with their boxes, some images at once."""
        for start in range(0, self.images.num_rows, _IMAGES_AT_ONCE):
            images = self.images.slice(start, _IMAGES_AT_ONCE)
            yield images, self.boxes_of(images)


class LabelledTile(NamedTuple):
    """A train tile with labels."""

    sample_id: str  # of its base sample
    image_id: str
    window: Window
    scale: float
    sides: NDArray[np.float64]  # of its labels, in source pixels
    counts: NDArray[np.int64]  # [5] its labels by size bucket
    pixels: int


class EmptyTile(NamedTuple):
    """A train tile without labels."""

    sample_id: str  # of its base sample
    near: bool  # a label touches it or lies less than half its side away
    pixels: int


class TileStats:
    """The tiles of every image, and how many objects lie whole in one."""

    def __init__(self, tables: Tables, plan: TilePlan, held_out: tuple[float, float] | None) -> None:
        """`held_out` are the shares of val and test, None where the splits came with the dataset."""
        self.held_out: Counter[str] = Counter()  # tiles of val and test
        self.labelled: list[LabelledTile] = []
        self.empty: list[EmptyTile] = []
        self.sizes = np.zeros(len(boxes.BUCKETS))  # labels of train tiles by size bucket
        self.objects = 0  # boxes with an area that are not ignored
        self.whole = 0  # of these, the ones that lie whole in a tile
        for image, xyxy, ignore in _images_with_boxes(tables):
            self._add(image, region.regions_of(image, held_out), xyxy, ignore, plan)

    def _add(
        self,
        image: ImageRow,
        regions: list[region.Region],
        xyxy: boxes.Boxes,
        ignore: NDArray[np.bool_],
        plan: TilePlan,
    ) -> None:
        wh = image["width"], image["height"]
        sides = boxes.side_length(boxes.clip(xyxy, (0, 0, *wh)))
        buckets = boxes.bucket(sides)
        whole = np.zeros(len(xyxy), dtype=np.bool_)
        for tile in cut_tiles(wh, xyxy, ignore, plan, regions):
            whole[tile.labelled[tile.visibility >= 1]] = True
            if tile.split != "train":
                self.held_out[tile.split] += 1
                continue
            name = sample_id(image["image_id"], tile.scale, tile.window, schema.BASE, 0)
            pixels = tile.size_wh[0] * tile.size_wh[1]
            if tile.labelled.size:
                label_sides = sides[tile.labelled]
                counts = np.bincount(buckets[tile.labelled], minlength=len(boxes.BUCKETS))
                self.labelled.append(
                    LabelledTile(name, image["image_id"], tile.window, tile.scale, label_sides, counts, pixels)
                )
                self.sizes += counts
            else:
                self.empty.append(EmptyTile(name, tile.near, pixels))
        is_object = ~ignore & (sides > 0)
        self.objects += int(is_object.sum())
        self.whole += int(whole[is_object].sum())

    @property
    def augmentable(self) -> list[LabelledTile]:
        """The tiles that may have augmented samples: those at scale 1 with labels."""
        return [tile for tile in self.labelled if tile.scale == 1]

    def empty_ids(self, *, near: bool) -> list[str]:
        """Return the sample ids of the empty train tiles near objects, or of those far from any."""
        return [tile.sample_id for tile in self.empty if tile.near == near]


def histogram(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number of boxes in each size bucket [5], given their side lengths sqrt(w * h) [N]."""
    return np.bincount(boxes.bucket(sides), minlength=len(boxes.BUCKETS)).astype(np.float64)


def _images_with_boxes(tables: Tables) -> Iterator[tuple[ImageRow, boxes.Boxes, NDArray[np.bool_]]]:
    """Yield each image's row with its boxes [N, 4] and which of them are ignored [N]; log the progress."""
    start = last_log = time.monotonic()
    done, total = 0, tables.images.num_rows
    for images, table in tables.pieces():
        if (now := time.monotonic()) - last_log >= _PROGRESS_SECONDS:
            seconds_left = (now - start) / done * (total - done)
            log.info("plan: %s of %s, %.0f s left", count(done), count_of(total, "image"), seconds_left)
            last_log = now
        xyxy, ignore = boxes.from_table(table), as_flags(table["ignore"])
        rows, starts = group_rows(find_places(table["image_id"], images["image_id"]), images.num_rows)
        for place, image in enumerate(images.select(["image_id", "width", "height", "split"]).to_pylist()):
            own = rows[starts[place] : starts[place + 1]]
            yield image, xyxy[own], ignore[own]
        done += images.num_rows
