"""Extra training samples: an image through a turned, mirrored, moved window, in other light, with objects pasted.

Geometry is ours, so that every box stays true: a sample is one affine view of the source image, boxes turn as the
ellipses inside them (Kalra et al. 2021, "Towards Rotation Invariance in Object Detection"), and what the border cuts
below the tile plan's visibility becomes an ignore region. Light, blur, noise and compression are Albumentations'.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.codec import Pixels
from etl.config import Augment
from etl.plan import TilePlan, Window

VERSION = 1
KIND = "augment"
GREY = 114  # what lies outside the image, as detectors pad it
_SMALL = 32.0  # px: the side below which an object is oversampled and pasted
_SHIFT = 0.25  # of the window's side: how far a crop moves
_ZOOM = (0.8, 1.25)
_PASTED = 3  # at most, in one sample
_TRIES = 8
_MARGIN = 2  # px of surroundings a pasted object brings along, feathered away


@dataclass(frozen=True)
class View:
    """An affine view of a source image: sample = matrix @ (x, y, 1)."""

    matrix: NDArray[np.float64]  # [2, 3]
    size_wh: tuple[int, int]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A sample being made: pixels, labelled boxes (with the row of the source box each shows) and ignore regions."""

    pixels: Pixels
    boxes: bx.Boxes  # [n, 4] sample pixels
    rows: NDArray[np.int64]  # [n] rows of the image's boxes
    visibility: NDArray[np.float64]  # [n]
    ignore: bx.Boxes  # [m, 4] sample pixels
    parameters: dict[str, Any]


def copies(sides: NDArray[np.float64], config: Augment) -> int:
    """Return how many augmented samples a train tile gives, by its labels' sides sqrt(w * h) in source pixels."""
    if sides.size == 0:
        return 0
    small = bool((sides < _SMALL).any())
    return round(config.copies * (config.oversample_small if small else 1.0))


def augment(
    source: Pixels,
    boxes: bx.Boxes,
    ignore: NDArray[np.bool_],
    window: Window,
    plan: TilePlan,
    config: Augment,
    seed: int,
) -> Scene:
    """Return one augmented sample of a source image [H, W, 3] around a window; `boxes` [N, 4] are the image's."""
    rng = np.random.default_rng([config.seed, seed])
    view = choose_view(window, config, rng)
    scene = look(source, boxes, ignore, view, plan.min_visibility)
    if config.copy_paste > 0 and rng.random() < config.copy_paste:
        scene = paste_small(scene, source, boxes, ignore, rng)
    pixels = disturb(scene.pixels, seed_of(rng)) if config.quality else scene.pixels
    return Scene(pixels, scene.boxes, scene.rows, scene.visibility, scene.ignore, scene.parameters)


def seed_of(rng: np.random.Generator) -> int:
    """Return a fresh 31-bit seed."""
    return int(rng.integers(2**31))


def choose_view(window: Window, config: Augment, rng: np.random.Generator) -> View:
    """Return a random view around a window, as large as the window."""
    x0, y0, x1, y1 = window
    width, height = x1 - x0, y1 - y0
    angle = float(rng.uniform(-config.rotate, config.rotate)) if config.rotate > 0 else 0.0
    zoom, shift = 1.0, np.zeros(2)
    if config.crop:
        zoom = float(np.exp(rng.uniform(*np.log(_ZOOM))))
        shift = rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
    mirror = np.where(rng.random(2) < 0.5, -1.0, 1.0)  # left-right, top-bottom
    turn = np.deg2rad(angle)
    linear = np.diag(mirror) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    centre = np.array([x0 + width / 2, y0 + height / 2]) + shift
    offset = np.array([width / 2, height / 2]) - linear @ centre
    parameters = {
        "angle": round(angle, 4),
        "zoom": round(zoom, 4),
        "shift": [round(float(value), 2) for value in shift],
        "mirror": [bool(side < 0) for side in mirror],
    }
    return View(np.column_stack([linear, offset]), (width, height), parameters)


def look(source: Pixels, boxes: bx.Boxes, ignore: NDArray[np.bool_], view: View, min_visibility: float) -> Scene:
    """Return what a view shows of a source image and its boxes."""
    pixel_centre = view.matrix.copy()  # OpenCV puts pixel centres on integers, boxes put them on halves
    pixel_centre[:, 2] += view.matrix[:, :2] @ (0.5, 0.5) - 0.5
    pixels = cv2.warpAffine(
        source,
        pixel_centre,
        view.size_wh,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(GREY,) * 3,
    )
    height, width = source.shape[:2]
    inside = bx.clip(boxes, (0, 0, width, height))
    turned = np.where(ignore[:, None], turn_regions(inside, view.matrix), turn_boxes(inside, view.matrix))
    frame = (0, 0, *view.size_wh)
    seen = bx.visibility(turned, frame)
    cut = bx.clip(turned, frame)
    visible = np.flatnonzero(seen > 0)
    label = ~ignore[visible] & (seen[visible] >= min_visibility)
    labelled, ignored = visible[label], visible[~label]
    return Scene(pixels.astype(np.uint8), cut[labelled], labelled, seen[labelled], cut[ignored], view.parameters)


def turn_boxes(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of the ellipses inscribed in the boxes, after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt((bx.size(boxes) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, centre + half], axis=1)


def turn_regions(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of whole boxes, corners and all, after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = bx.size(boxes) / 2 @ np.abs(matrix[:, :2]).T
    return np.concatenate([centre - half, centre + half], axis=1)


def paste_small(
    scene: Scene, source: Pixels, boxes: bx.Boxes, ignore: NDArray[np.bool_], rng: np.random.Generator
) -> Scene:
    """Return the scene with up to three small objects of its image pasted onto free, similar ground.

    Box-only copy-paste of small objects (Kisantal et al. 2019, arXiv 1902.07296), feathered; never over a labelled box
    or an ignore region.
    """
    donors = _donors(source, boxes, ignore)
    pixels, taken = scene.pixels.copy(), [*scene.boxes, *scene.ignore]
    new_boxes, new_rows = [], []
    for donor in rng.permutation(donors)[:_PASTED]:
        patch, inner = _patch(source, boxes[donor])
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
            inner = np.array([patch.shape[1] - inner[2], inner[1], patch.shape[1] - inner[0], inner[3]])
        place = _free_place(pixels, patch, bx.as_boxes(taken), rng)
        if place is None:
            continue
        x, y = place
        h, w = patch.shape[:2]
        alpha = _feather(h, w)[..., None]
        ground = pixels[y : y + h, x : x + w].astype(np.float32)
        pixels[y : y + h, x : x + w] = np.rint(patch * alpha + ground * (1 - alpha)).astype(np.uint8)
        box = inner + np.array([x, y, x, y])
        taken.append(box)
        new_boxes.append(box)
        new_rows.append(donor)
    if not new_boxes:
        return scene
    return Scene(
        pixels,
        np.concatenate([scene.boxes, bx.as_boxes(new_boxes)]),
        np.concatenate([scene.rows, np.array(new_rows, dtype=np.int64)]),
        np.concatenate([scene.visibility, np.ones(len(new_rows))]),
        scene.ignore,
        {**scene.parameters, "pasted": len(new_rows)},
    )


def _donors(source: Pixels, boxes: bx.Boxes, ignore: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows of small objects that lie whole in the image and touch no other box."""
    height, width = source.shape[:2]
    room = _MARGIN + 1
    inside = (boxes[:, :2] >= room).all(1) & (boxes[:, 2] <= width - room) & (boxes[:, 3] <= height - room)
    small = (bx.side_length(boxes) < _SMALL) & (bx.size(boxes) >= 3).all(1)
    rows = np.flatnonzero(inside & small & ~ignore)
    if rows.size == 0:
        return rows
    shared = bx.intersection(boxes[rows], boxes)
    shared[np.arange(rows.size), rows] = 0
    alone: NDArray[np.int64] = rows[shared.max(axis=1) == 0]
    return alone


def _patch(source: Pixels, box: NDArray[np.float64]) -> tuple[Pixels, NDArray[np.float64]]:
    """Return an object with a margin around it, and its box in the patch's own pixels."""
    x0, y0 = np.floor(box[:2]).astype(int) - _MARGIN
    x1, y1 = np.ceil(box[2:]).astype(int) + _MARGIN
    return source[y0:y1, x0:x1], box - np.array([x0, y0, x0, y0])


def _free_place(pixels: Pixels, patch: Pixels, taken: bx.Boxes, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return the corner of the free place whose ground is most like the patch's border, of a few tried."""
    height, width = pixels.shape[:2]
    h, w = patch.shape[:2]
    if h >= height or w >= width:
        return None
    border = np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]]).mean(axis=0)
    best, least = None, np.inf
    for _ in range(_TRIES):
        x, y = int(rng.integers(width - w)), int(rng.integers(height - h))
        if taken.size and bx.intersection(bx.as_boxes([x, y, x + w, y + h]), taken).any():
            continue
        difference = float(np.abs(pixels[y : y + h, x : x + w].mean(axis=(0, 1)) - border).sum())
        if difference < least:
            best, least = (x, y), difference
    return best


def _feather(height: int, width: int) -> NDArray[np.float32]:
    """Return an opacity [H, W] that is 1 inside the margin and fades to 0 at the border."""

    def ramp(length: int) -> NDArray[np.float32]:
        steps = np.minimum(np.arange(length), np.arange(length)[::-1]).astype(np.float32)
        return np.minimum((steps + 0.5) / _MARGIN, 1.0).astype(np.float32)

    return np.minimum.outer(ramp(height), ramp(width))


def disturb(pixels: Pixels, seed: int) -> Pixels:
    """Return the pixels in other light, blurred, noisy or compressed, as the seed has it."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for news otherwise
    import albumentations as alb

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
