"""What augmentation will make of a dataset's sizes, by acting it out without pixels; and the rate that steers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes, region
from etl.config import Config
from etl.ids import fraction, sample_id, seed_of
from etl.plan import Rate, TilePlan
from etl.stages.augment import donor_reader, donors, oversample, sample
from etl.stages.augment.labelled_image import Picture
from etl.stages.planning.tile_stats import LabelledTile, histogram

_ACTED_OUT = 300  # augmented samples at most
_TRIED = 150  # the same, while a rate is sought
_ROUNDS = 2  # the rate is chosen, acted out, and chosen again knowing what came of it

Counts = NDArray[np.float64]


class Stage:
    """Acts out the geometry of augmented samples on black pictures."""

    def __init__(
        self, tiles: Sequence[LabelledTile], images: pa.Table, annotations: pa.Table, cut: TilePlan, config: Config
    ) -> None:
        """Take the tiles that may give samples, with the images and usable boxes of the whole dataset."""
        lenders = donors.lending(images, annotations, config.augment)
        self._tiles = tiles
        self._lender = donor_reader.Lender(donor_reader.loans(lenders, images, images, annotations), _black)
        self._images: Mapping[str, dict[str, Any]] = {row["image_id"]: row for row in images.to_pylist()}
        self._rows: dict[str, donor_reader.Rows] = {}
        for row in annotations.to_pylist():
            self._rows.setdefault(row["image_id"], []).append(row)
        self._held_out = config.source.held_out
        self._cast = cache(self._find_cast)
        self._cut, self._config = cut, config.augment.model_copy(update={"quality": False})  # it moves no label

    def rate(self, before: Counts) -> Rate:
        """Return the rate that comes nearest the asked histogram, given the labels by size [5] of all base tiles."""
        labels = np.array([_small_and_other(histogram(tile.sides)) for tile in self._tiles]).reshape(-1, 2)
        share = labels[:, 0] / np.maximum(labels.sum(axis=1), 1)
        rate = oversample.choose(_small_and_other(before), labels, self._config)
        for _ in range(_ROUNDS if self._config.copies else 0):
            used = (oversample.average(rate, share)[:, None] * labels).sum(axis=0)
            gain = np.divide(_small_and_other(self.play(rate, _TRIED)), used, out=np.ones(2), where=used > 0)
            rate = oversample.choose(_small_and_other(before), labels, self._config, (float(gain[0]), float(gain[1])))
        return rate

    def play(self, rate: Rate, most: int = _ACTED_OUT) -> Counts:
        """Return the labels by size bucket [5] of all augmented samples, reckoned from at most so many of them."""
        wanted = [
            (tile, copy) for tile in self._tiles for copy in range(oversample.copies(tile.name, tile.sides, rate))
        ]
        some = sorted(wanted, key=lambda one: fraction(f"forecast:{one[1]}:{one[0].name}"))[:most]
        found = sum((self._labels(tile, copy) for tile, copy in some), np.zeros(len(boxes.BUCKETS)))
        return found * (len(wanted) / len(some)) if some else found

    def _find_cast(self, image: str) -> tuple[Picture, list[Callable[[], Picture]]]:
        """Return an image, and its donors."""
        rows = self._rows[image]
        row = self._images[image]
        own = Picture(image, _black(row), boxes.from_rows(rows), donor_reader.ignored(rows))
        own = own.part(region.window_of(row, "train", self._held_out), self._cut.min_visibility)
        return own, self._lender.pictures(image, len(rows))

    def _labels(self, tile: LabelledTile, copy: int) -> Counts:
        picture, lent = self._cast(tile.image)
        names = {kind: sample_id(tile.image, 1.0, tile.window, kind, copy) for kind in sample.KINDS}
        kind = sample.kind(names[sample.MOSAIC], tile.window, self._config)
        scene = sample.augment(
            picture, lent, kind, picture.inside(tile.window), self._cut, self._config, seed_of(names[kind])
        )
        row = self._images[tile.image]
        inside = boxes.clip(boxes.from_rows(self._rows[tile.image]), (0, 0, row["width"], row["height"]))
        sides = np.concatenate([boxes.side_length(inside), self._lender.sides(tile.image)])
        return histogram(sides[scene.rows])


def _black(image: Mapping[str, Any]) -> NDArray[np.uint8]:
    return np.broadcast_to(np.uint8(0), (image["height"], image["width"], 3))


def _small_and_other(counts: Counts) -> Counts:
    return np.array([counts[: boxes.SMALL_BUCKETS].sum(), counts[boxes.SMALL_BUCKETS :].sum()])
