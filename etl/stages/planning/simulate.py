"""Predict the label sizes of augmented samples by simulating their geometry, and choose the rate by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes
from etl.config import Config
from etl.ids import fraction
from etl.plan import Rate, TilePlan
from etl.stages.augment import oversample
from etl.stages.augment.donor_reader import DonorReader, select_donors
from etl.stages.augment.donors import choose_donors, donor_set
from etl.stages.augment.labelled_image import LabelledImage, train_region
from etl.stages.augment.sample import augment, choose_recipe
from etl.stages.image_annotations import AnnotatedImages
from etl.stages.planning.tile_stats import LabelledTile, Tables, histogram
from etl.stages.rows import ImageRow

_MAX_SAMPLES = 300  # augmented samples simulated
_MAX_SAMPLES_OF_RATE = 150  # the same while a rate is chosen
_ROUNDS = 2  # the rate is chosen, simulated, and chosen again with the labels that the samples had

Counts = NDArray[np.float64]


class AugmentationSimulator:
    """Simulates augmented samples on black images: their boxes are exact, their pixels are not computed."""

    def __init__(self, tiles: Sequence[LabelledTile], tables: Tables, plan: TilePlan, config: Config) -> None:
        """`tiles` may have augmented samples; `tables` are those of the whole dataset."""
        self._tiles = tiles
        self._tables = tables
        self._donors = choose_donors(tables.images, (boxes for _, boxes in tables.pieces()), config.augment)
        self._held_out = config.source.held_out
        self._inputs = cache(self._make_inputs)
        self._plan = plan
        self._config = config.augment.model_copy(update={"quality": False})  # corruptions move no label

    def choose_rate(self, base_sizes: Counts) -> Rate:
        """Return the rate that comes nearest the target histogram; `base_sizes` [5] counts the labels of base tiles."""
        labels = np.array([_small_and_other(tile.counts) for tile in self._tiles]).reshape(-1, 2)
        share = labels[:, 0] / np.maximum(labels.sum(axis=1), 1)
        rate = oversample.choose_rate(_small_and_other(base_sizes), labels, self._config)
        for _ in range(_ROUNDS if self._config.copies else 0):
            copied = (oversample.average_copies(rate, share)[:, None] * labels).sum(axis=0)
            simulated = _small_and_other(self.run(rate, _MAX_SAMPLES_OF_RATE))
            gain = np.divide(simulated, copied, out=np.ones(2), where=copied > 0)
            rate = oversample.choose_rate(
                _small_and_other(base_sizes), labels, self._config, (float(gain[0]), float(gain[1]))
            )
        return rate

    def run(self, rate: Rate, max_samples: int = _MAX_SAMPLES) -> Counts:
        """Return the labels of all augmented samples by size bucket [5], extrapolated from at most `max_samples`."""
        samples = [
            (tile, copy)
            for tile in self._tiles
            for copy in range(oversample.count_copies(tile.sample_id, tile.sides, rate))
        ]
        simulated = sorted(samples, key=lambda one: fraction(f"forecast:{one[1]}:{one[0].sample_id}"))[:max_samples]
        counts = sum((self._simulate(tile, copy) for tile, copy in simulated), np.zeros(len(boxes.BUCKETS)))
        return counts * (len(samples) / len(simulated)) if simulated else counts

    def _simulate(self, tile: LabelledTile, copy: int) -> Counts:
        """Return the labels by size bucket [5] of one augmented sample of a tile."""
        recipe = choose_recipe(tile.image_id, tile.window, copy, self._config)
        own, donors, sides = self._inputs(tile.image_id, donor_set(recipe.sample_id))
        window = own.to_local(tile.window)
        sample = augment(own, donors, recipe.kind, window, self._plan, self._config, recipe.seed)
        return histogram(sides[sample.rows])

    def _make_inputs(
        self, image_id: str, number: int
    ) -> tuple[LabelledImage, list[Callable[[], LabelledImage]], NDArray[np.float64]]:
        """Return an image, the donors of one of its sets, and the side lengths of the boxes of all of them."""
        image = self._tables.images.filter(pc.equal(self._tables.images["image_id"], image_id))
        annotated = AnnotatedImages(image, self._tables.boxes_of(image))[image_id]
        lent = select_donors(self._donors, image, self._tables.images, self._tables.boxes_of)
        reader = DonorReader(lent, _black)
        own = train_region(annotated, _black(annotated.image), self._plan.min_visibility, self._held_out)
        donors = reader.images(image_id, number, len(annotated.rows))
        return own, donors, np.concatenate([annotated.sides, reader.sides(image_id, number)])


def _black(image: ImageRow) -> NDArray[np.uint8]:
    return np.broadcast_to(np.uint8(0), (image["height"], image["width"], 3))


def _small_and_other(counts: Counts | NDArray[np.int64]) -> Counts:
    return np.array([counts[: boxes.SMALL_BUCKETS].sum(), counts[boxes.SMALL_BUCKETS :].sum()])
