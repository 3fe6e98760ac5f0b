"""Copy-paste of small objects by box, feathered, onto free, similar ground (Kisantal et al. 2019, arXiv 1902.07296)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.imaging.codec import Pixels
from etl.stages.augment.affine import GREY, Scene
from etl.stages.augment.labelled_image import MARGIN, Picture

MOST = 8  # objects pasted into one sample
_SCALE = (0.8, 1.25)
_TRIES = 16
_UNLIKE = 40.0  # difference in colour and its spread, of 255, from which ground is not similar


def wanted(sides: NDArray[np.float64], boost: float) -> NDArray[np.int64]:
    """Return how many objects [3] of each size bucket below 32 px to add to a sample with labels of these sides.

    As many as bring the small ones to `boost` times their number, bucket by bucket, in all at most 8; where that is
    none, one of the size it has most of.
    """
    counts = np.bincount(bx.bucket(sides), minlength=len(bx.BUCKETS))[: bx.SMALL_BUCKETS]
    more: NDArray[np.int64] = np.floor(counts * (boost - 1) + 0.5).astype(np.int64)
    while more.sum() > MOST:
        more[int(np.argmax(more))] -= 1
    if more.sum() == 0:
        more[int(np.argmax(counts)) if counts.any() else bx.SMALL_BUCKETS - 1] = 1
    return more


def paste_small(scene: Scene, pictures: Sequence[Picture], boost: float, rng: np.random.Generator) -> Scene:
    """Return the scene with small objects of the pictures pasted where no label and no ignore region is touched."""
    chosen = _choose(pictures, wanted(bx.side_length(scene.boxes), boost), rng)
    pixels, taken = scene.pixels.copy(), bx.as_boxes([*scene.boxes, *scene.ignore])
    boxes, rows, notes = [], [], []
    for picture, row in chosen:
        patch, inner, note = _patch(picture, row, rng)
        place = _free_place(pixels, patch, taken, rng)
        if place is None:
            continue
        h, w = patch.shape[:2]
        x, y = place
        alpha = _feather(h, w)[..., None]
        ground = pixels[y : y + h, x : x + w].astype(np.float32)
        pixels[y : y + h, x : x + w] = np.rint(patch * alpha + ground * (1 - alpha)).astype(np.uint8)
        box = inner + np.array([x, y, x, y])
        taken = np.concatenate([taken, box[None]])
        boxes.append(box)
        rows.append(picture.first + row)
        notes.append({"image": picture.image_id, **note})
    return Scene(
        pixels,
        np.concatenate([scene.boxes, bx.as_boxes(boxes)]),
        np.concatenate([scene.rows, np.array(rows, dtype=np.int64)]),
        np.concatenate([scene.visibility, np.ones(len(rows))]),
        scene.ignore,
        scene.ignored,
        {**scene.parameters, "pasted": notes},
    )


def _choose(
    pictures: Sequence[Picture], numbers: NDArray[np.int64], rng: np.random.Generator
) -> list[tuple[Picture, int]]:
    """Return random objects, as many of each size bucket as asked, of any small size where there are none of it."""
    owner = np.repeat(np.arange(len(pictures)), [picture.pasteable.size for picture in pictures])
    if owner.size == 0:
        return []
    rows = np.concatenate([picture.pasteable for picture in pictures])
    sizes = np.concatenate([picture.pasteable_sizes for picture in pictures])
    chosen = []
    for bucket, number in enumerate(numbers):
        fitting = np.flatnonzero(sizes == bucket)
        fitting = fitting if fitting.size else np.arange(owner.size)
        chosen += [(pictures[owner[place]], int(rows[place])) for place in rng.choice(fitting, int(number))]
    return chosen


def _patch(picture: Picture, row: int, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.float64], dict[str, Any]]:
    """Return an object with a margin around it, resized and maybe mirrored, and its box in the patch's own pixels."""
    box = picture.boxes[row]
    x0, y0 = np.floor(box[:2]).astype(int) - MARGIN
    x1, y1 = np.ceil(box[2:]).astype(int) + MARGIN
    patch, inner = picture.pixels[y0:y1, x0:x1], box - np.array([x0, y0, x0, y0])
    scale = float(np.exp(rng.uniform(*np.log(_SCALE))))
    before = np.array(patch.shape[1::-1])
    after = np.maximum(np.rint(before * scale).astype(int), 1)
    patch = cv2.resize(
        patch, (int(after[0]), int(after[1])), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    ).astype(np.uint8)
    inner = inner * np.tile(after / before, 2)
    mirrored = bool(rng.random() < 0.5)
    if mirrored:
        patch = patch[:, ::-1]
        inner = np.array([after[0] - inner[2], inner[1], after[0] - inner[0], inner[3]])
    return patch, inner, {"scale": round(scale, 4), "mirror": mirrored}


def _free_place(pixels: Pixels, patch: Pixels, taken: bx.Boxes, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return the corner of the free place whose ground is most like the patch's border, None if none tried is."""
    height, width = pixels.shape[:2]
    h, w = patch.shape[:2]
    if h >= height or w >= width:
        return None
    wanted_mean, wanted_deviation = cv2.meanStdDev(_border(patch)[None])
    best, least = None, _UNLIKE
    for x, y in zip(rng.integers(width - w, size=_TRIES), rng.integers(height - h, size=_TRIES), strict=True):
        if taken.size and bx.intersection(bx.as_boxes([x, y, x + w, y + h]), taken).any():
            continue
        ground = _border(pixels[y : y + h, x : x + w])
        if (ground == GREY).all(axis=1).any():  # beyond the image
            continue
        mean, deviation = cv2.meanStdDev(ground[None])
        difference = float(np.abs(mean - wanted_mean).mean() + np.abs(deviation - wanted_deviation).mean())
        if difference < least:
            best, least = (int(x), int(y)), difference
    return best


def _border(pixels: Pixels) -> Pixels:
    """Return the outermost pixels [n, 3]."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _feather(height: int, width: int) -> NDArray[np.float32]:
    """Return an opacity [H, W] that is 1 inside the margin and fades to 0 at the border."""

    def ramp(length: int) -> NDArray[np.float32]:
        steps = np.minimum(np.arange(length), np.arange(length)[::-1]).astype(np.float32)
        return np.minimum((steps + 0.5) / MARGIN, 1.0).astype(np.float32)

    return np.minimum.outer(ramp(height), ramp(width))
