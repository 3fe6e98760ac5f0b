"""Corruptions of a sample: cutouts, brightness, contrast, colour, blur, noise and JPEG compression."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np

from etl import boxes
from etl.errors import TaskError
from etl.imaging.codec import Pixels
from etl.stages.augment.affine import AugmentedImage

_OCCLUDED = 0.3  # share of the samples with cutouts
_MAX_CUTOUTS = 3
_OBJECT_CUTOUT = (0.2, 0.5)  # sides of a cutout, as shares of the object's sides
_MIN_SIDE = 12.0  # px: objects with a smaller side length are not occluded
_BACKGROUND_CUTOUT = (6, 24)  # px: sides of a cutout where there is no such object


def occlude(sample: AugmentedImage, min_visibility: float, rng: np.random.Generator) -> AugmentedImage:
    """Return the sample, in 30 % of cases with up to three small cutouts, and the visibility they leave.

    A cutout that would leave a label less than `min_visibility` is not made.
    """
    if rng.random() >= _OCCLUDED:
        return sample
    height, width = sample.pixels.shape[:2]
    pixels, visibility = sample.pixels.copy(), sample.visibility.copy()
    objects = np.flatnonzero(boxes.side_length(sample.boxes) >= _MIN_SIDE)
    per_pixel = sample.visibility / np.maximum(boxes.area(sample.boxes), 1e-9)  # visibility lost with one pixel
    cutouts = 0
    for _ in range(int(rng.integers(1, _MAX_CUTOUTS + 1))):
        if objects.size:
            x0, y0, x1, y1 = sample.boxes[rng.choice(objects)]
            wh = rng.uniform(*_OBJECT_CUTOUT, 2) * (x1 - x0, y1 - y0)
            centre = rng.uniform((x0, y0), (x1, y1))
        else:
            wh = rng.uniform(*_BACKGROUND_CUTOUT, 2)
            centre = rng.uniform((0, 0), (width, height))
        corners = np.rint(np.concatenate([centre - wh / 2, centre + wh / 2]))
        cutout = boxes.clip(boxes.as_boxes(corners), (0, 0, width, height))
        remaining = visibility - boxes.intersection(cutout, sample.boxes)[0] * per_pixel
        if (remaining[remaining < visibility] < min_visibility).any():
            continue
        colour = pixels[int(rng.integers(height)), int(rng.integers(width))]
        c0, r0, c1, r1 = cutout[0].astype(int)
        pixels[r0:r1, c0:c1] = colour
        visibility = remaining
        cutouts += 1
    return replace(sample, pixels=pixels, visibility=visibility, parameters={**sample.parameters, "cutouts": cutouts})


def corrupt(pixels: Pixels, seed: int) -> Pixels:
    """Return the pixels with random changes of light and colour, blur, noise and compression, fixed by the seed."""
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
    corrupted: Pixels = chain(image=pixels)["image"]
    return corrupted


@cache
def _albumentations() -> ModuleType:
    """Import the library without torch: its optional import costs every worker a second and 130 MB.

    Raises TaskError, with the remedy, if it is not installed.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no version check over the network
    if importlib.util.find_spec("albumentations") is None:
        cure = "install it (`pip install '.[augment]'`) or set augment.quality to false"
        raise TaskError(f"augmented samples need albumentations, which {platform.node()} does not have: {cure}")
    if "torch" in sys.modules:
        return importlib.import_module("albumentations")
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails as if it were not installed
    try:
        return importlib.import_module("albumentations")
    finally:
        del sys.modules["torch"]
