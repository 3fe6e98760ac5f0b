"""One augmented sample of an image: an affine view or a mosaic, with small objects pasted and corruptions applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from etl.config import Augment
from etl.ids import fraction, sample_id, seed_of
from etl.plan import TilePlan, Window
from etl.stages.augment.affine import AugmentedImage, choose_transform, clamp_centre, make_view, render
from etl.stages.augment.copy_paste import paste_small
from etl.stages.augment.corruptions import corrupt, occlude
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.mosaic import MIN_SIDE, make_mosaic

VERSION = 5
AUGMENT = "augment"  # recipe kind of a sample that shows one view
MOSAIC = "mosaic"
KINDS = (AUGMENT, MOSAIC)
_SHIFT = 0.25  # of the window's side: maximum shift of a view
_ZOOM = (0.8, 1.25)


def recipe_kind(mosaic_id: str, window: Window, config: Augment) -> str:
    """Return the recipe kind of an augmented sample, given the id that it has as a mosaic."""
    has_room = min(window.x1 - window.x0, window.y1 - window.y0) >= MIN_SIDE
    return MOSAIC if has_room and fraction(f"{config.seed}:{mosaic_id}") < config.mosaic else AUGMENT


class Recipe(NamedTuple):
    """Which augmented sample is made, and the seed of its random choices."""

    sample_id: str
    kind: str
    seed: int


def choose_recipe(image_id: str, window: Window, copy: int, config: Augment) -> Recipe:
    """Return the recipe of a window's augmented sample with this number."""
    ids = {kind: sample_id(image_id, 1.0, window, kind, copy) for kind in KINDS}
    kind = recipe_kind(ids[MOSAIC], window, config)
    return Recipe(ids[kind], kind, seed_of(ids[kind]))


def augment(
    own: LabelledImage,
    donors: Sequence[Callable[[], LabelledImage]],
    kind: str,
    window: Window,
    plan: TilePlan,
    config: Augment,
    seed: int,
) -> AugmentedImage:
    """Return one augmented sample of an image around a window, of the window's size.

    Donors are read only when the sample needs them: for a mosaic, or to paste their objects.
    """
    rng = np.random.default_rng([config.seed, seed])
    if kind == MOSAIC:
        sample = make_mosaic(own, donors, window, plan, config, rng)
    else:
        sample = _random_view(own, window, plan, config, rng)
    pasting = config.copy_paste > 0 and rng.random() < config.copy_paste
    if pasting:
        donors = donors if kind == MOSAIC else donors[:1]  # one more image to read
        sample = paste_small(sample, [own, *(donor() for donor in donors)], config.oversample_small, rng)
    if pasting or kind == MOSAIC:
        donor_ids = [donor().image_id for donor in donors]
        sample = replace(sample, parameters={**sample.parameters, "donors": donor_ids})
    if config.quality:
        sample = occlude(sample, plan.min_visibility, rng)
        sample = replace(sample, pixels=corrupt(sample.pixels, int(rng.integers(2**31))))
    return sample


def _random_view(
    own: LabelledImage, window: Window, plan: TilePlan, config: Augment, rng: np.random.Generator
) -> AugmentedImage:
    """Return a random view around a window, of the window's size."""
    size = window.x1 - window.x0, window.y1 - window.y0
    centre, zoom = np.array([window.x0 + size[0] / 2, window.y0 + size[1] / 2]), 1.0
    if config.crop:
        zoom = float(np.exp(rng.uniform(*np.log(_ZOOM))))
        centre = clamp_centre(centre + rng.uniform(-_SHIFT, _SHIFT, 2) * size, np.array(size) / zoom, own)
    view = make_view(centre, size, choose_transform(own, window, config, rng, zoom))
    return render(own, view, plan.min_visibility)
