"""Extra training samples: a turned, mirrored, moved view of an image or a mosaic of four, with small objects pasted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from etl.config import Augment
from etl.ids import fraction
from etl.plan import TilePlan, Window
from etl.stages.augment.affine import Scene, choose_pose, inside, look, view_at
from etl.stages.augment.copy_paste import paste_small
from etl.stages.augment.corruptions import disturb, occlude
from etl.stages.augment.labelled_image import Picture
from etl.stages.augment.mosaic import MIN_SIDE, mosaic

VERSION = 4
KIND = "augment"
MOSAIC = "mosaic"
KINDS = (KIND, MOSAIC)
_SHIFT = 0.25  # of the window's side: how far a crop moves
_ZOOM = (0.8, 1.25)


def kind(name: str, window: Window, config: Augment) -> str:
    """Return the recipe kind of a window's next augmented sample, `name` being its id if it were a mosaic."""
    roomy = min(window.x1 - window.x0, window.y1 - window.y0) >= MIN_SIDE
    return MOSAIC if roomy and fraction(f"{config.seed}:{name}") < config.mosaic else KIND


def augment(
    own: Picture,
    donors: Sequence[Callable[[], Picture]],
    kind: str,
    window: Window,
    plan: TilePlan,
    config: Augment,
    seed: int,
) -> Scene:
    """Return one augmented sample of an image around a window, with what its donors lend; see `etl.donors`."""
    rng = np.random.default_rng([config.seed, seed])
    make = partial(mosaic, own, donors) if kind == MOSAIC else partial(_moved, own)
    scene = make(window, plan, config, rng)
    pasting = config.copy_paste > 0 and rng.random() < config.copy_paste
    if pasting:
        scene = paste_small(scene, [own, *(donor() for donor in donors)], config.oversample_small, rng)
    if pasting or kind == MOSAIC:  # what else than its own image the sample depends on
        lenders = [donor().image_id for donor in donors]
        scene = replace(scene, parameters={**scene.parameters, "donors": lenders})
    if config.quality:
        scene = occlude(scene, plan.min_visibility, rng)
        scene = replace(scene, pixels=disturb(scene.pixels, int(rng.integers(2**31))))
    return scene


def _moved(own: Picture, window: Window, plan: TilePlan, config: Augment, rng: np.random.Generator) -> Scene:
    """Return a random view around a window, as large as the window."""
    size = window.x1 - window.x0, window.y1 - window.y0
    centre, zoom = np.array([window.x0 + size[0] / 2, window.y0 + size[1] / 2]), 1.0
    if config.crop:
        zoom = float(np.exp(rng.uniform(*np.log(_ZOOM))))
        centre = inside(centre + rng.uniform(-_SHIFT, _SHIFT, 2) * size, np.array(size) / zoom, own)
    return look(own, view_at(centre, size, choose_pose(own, window, config, rng, zoom)), plan.min_visibility)
