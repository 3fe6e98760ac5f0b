"""The samples of one image: a base sample for each tile that is kept, and the augmented samples of train tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import region
from etl.boxes import Boxes
from etl.config import Augment
from etl.ids import sample_id
from etl.imaging.codec import Pixels
from etl.plan import Plan
from etl.schema import BASE
from etl.stages.augment import oversample
from etl.stages.augment.donors import donor_set
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.recipe import Parameters
from etl.stages.augment.sample import augment, choose_recipe
from etl.stages.image_annotations import ImageAnnotations
from etl.stages.tile import Tile, cut_tiles, keeps_negative, label_weights


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample with its labels and ignore regions in sample pixels, before its image is encoded.

    Rows number the annotations of the image first, then those of its donors.
    """

    sample_id: str
    image_id: str
    tile: Tile
    kind: str  # of the recipe: BASE, or of an augmentation
    seed: int
    parameters: Parameters
    parents: tuple[str, ...]  # sample_ids
    boxes: Boxes  # [n, 4]
    rows: NDArray[np.int64]  # [n] annotations of the labels
    visibility: NDArray[np.float64]  # [n]
    weights: NDArray[np.float64] | None  # [n]; None for augmented samples
    ignore: Boxes  # [m, 4]
    ignored: NDArray[np.int64]  # [m] annotations of the ignore regions


def base_samples(annotated: ImageAnnotations, plan: Plan, held_out: tuple[float, float] | None) -> list[Sample]:
    """Return the samples that are plain cut-outs: every tile, but of empty train tiles only those the plan keeps.

    `held_out` are the shares of val and test, None where the splits came with the dataset.
    """
    image_id = annotated.image["image_id"]
    regions = region.regions_of(annotated.image, held_out)
    tiles = cut_tiles(annotated.size_wh, annotated.boxes, annotated.ignore, plan.tile, regions)
    weights = label_weights(tiles, len(annotated.rows))
    samples = []
    for tile in tiles:
        name = sample_id(image_id, tile.scale, tile.window, BASE, 0)
        if tile.split != "train" or tile.labelled.size or keeps_negative(name, tile.near, plan):
            samples.append(_base_sample(name, image_id, tile, weights[tile.labelled]))
    return samples


def augmented_samples(
    base: Sample,
    annotated: ImageAnnotations,
    own: Callable[[], LabelledImage],
    donors: Sequence[Callable[[], LabelledImage]],
    number: int,
    plan: Plan,
    config: Augment,
) -> Iterator[tuple[Sample, Pixels]]:
    """Yield the augmented samples of a base sample that use a set of donors, with their pixels [H, W, 3].

    Only train tiles at scale 1 have any. `own` returns the train region of the base sample's image, and is called only
    if there are samples to make. `number` is that of the set.
    """
    tile = base.tile
    if tile.split != "train" or tile.scale != 1:
        return
    for copy in range(oversample.count_copies(base.sample_id, annotated.sides[base.rows], plan.rate)):
        recipe = choose_recipe(base.image_id, tile.window, copy, config)
        if donor_set(recipe.sample_id) != number:
            continue
        image = own()
        augmented = augment(image, donors, recipe.kind, image.to_local(tile.window), plan.tile, config, recipe.seed)
        sample = Sample(
            sample_id=recipe.sample_id,
            image_id=base.image_id,
            tile=tile,
            kind=recipe.kind,
            seed=recipe.seed,
            parameters=augmented.parameters,
            parents=(base.sample_id,),
            boxes=augmented.boxes,
            rows=augmented.rows,
            visibility=augmented.visibility,
            weights=None,
            ignore=augmented.ignore,
            ignored=augmented.ignored,
        )
        yield sample, augmented.pixels


def _base_sample(name: str, image_id: str, tile: Tile, weights: NDArray[np.float64]) -> Sample:
    return Sample(
        sample_id=name,
        image_id=image_id,
        tile=tile,
        kind=BASE,
        seed=0,
        parameters={},
        parents=(),
        boxes=tile.boxes,
        rows=tile.labelled,
        visibility=tile.visibility,
        weights=weights,
        ignore=tile.ignore,
        ignored=tile.ignored,
    )
