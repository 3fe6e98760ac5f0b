"""A sample as a worse day would show it: partly hidden, in other light, blurred, noisy, compressed."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np

from etl import boxes
from etl.imaging.codec import Pixels
from etl.stages.augment.affine import Scene

_OCCLUDED = 0.3  # of the samples
_CUTOUTS = 3  # at most
_CUTOUT = (0.2, 0.5)  # of the sides of the object it lies over
_LEAST = 12.0  # px: the side length below which an object is too small to be hidden in part
_GROUND = (6, 24)  # px: the sides of a cutout where there is no such object


def occlude(scene: Scene, min_visibility: float, rng: np.random.Generator) -> Scene:
    """Return the scene, at times with up to three small cutouts, its visibilities lowered by what they hide.

    No label's visibility falls below `min_visibility`: none loses more than 1 - `min_visibility` of its box.
    """
    if rng.random() >= _OCCLUDED:
        return scene
    height, width = scene.pixels.shape[:2]
    pixels, seen = scene.pixels.copy(), scene.visibility.copy()
    objects = np.flatnonzero(boxes.side_length(scene.boxes) >= _LEAST)
    share = scene.visibility / np.maximum(boxes.area(scene.boxes), 1e-9)  # of the object, in one pixel
    cutouts = 0
    for _ in range(int(rng.integers(1, _CUTOUTS + 1))):
        if objects.size:
            x0, y0, x1, y1 = scene.boxes[rng.choice(objects)]
            wh = rng.uniform(*_CUTOUT, 2) * (x1 - x0, y1 - y0)
            centre = rng.uniform((x0, y0), (x1, y1))
        else:
            wh = rng.uniform(*_GROUND, 2)
            centre = rng.uniform((0, 0), (width, height))
        corners = np.rint(np.concatenate([centre - wh / 2, centre + wh / 2]))
        cut = boxes.clip(boxes.as_boxes(corners), (0, 0, width, height))
        left = seen - boxes.intersection(cut, scene.boxes)[0] * share
        if (left[left < seen] < min_visibility).any():
            continue
        colour = pixels[int(rng.integers(height)), int(rng.integers(width))]
        c0, r0, c1, r1 = cut[0].astype(int)
        pixels[r0:r1, c0:c1] = colour
        seen = left
        cutouts += 1
    return replace(scene, pixels=pixels, visibility=seen, parameters={**scene.parameters, "cutouts": cutouts})


def disturb(pixels: Pixels, seed: int) -> Pixels:
    """Return the pixels in other light, blurred, noisy or compressed, as the seed has it."""
    alb = _albumentations()
    chain = alb.Compose(
        [
            alb.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.6),
            alb.HueSaturationValue(hue_shift_limit=8, sat_shift_limit=20, val_shift_limit=10, p=0.4),
            alb.OneOf([alb.GaussianBlur(blur_limit=(3, 3), p=1), alb.MotionBlur(blur_limit=(3, 3), p=1)], p=0.15),
            alb.GaussNoise(std_range=(0.01, 0.04), p=0.2),
            alb.ImageCompression(quality_range=(60, 95), p=0.2),
        ],
        seed=seed,
    )
    disturbed: Pixels = chain(image=pixels)["image"]
    return disturbed


@cache
def _albumentations() -> ModuleType:
    """Import the library without torch, which it would load to make tensors: a second and 130 MB of every worker."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for news otherwise
    if "torch" in sys.modules:
        return importlib.import_module("albumentations")
    sys.modules["torch"] = None  # type: ignore[assignment]  # as where it is not installed
    try:
        return importlib.import_module("albumentations")
    finally:
        del sys.modules["torch"]
