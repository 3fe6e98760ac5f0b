"""Copy-paste of small objects by box, feathered, onto similar free background (Kisantal et al. 2019, 1902.07296)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.imaging.codec import Pixels
from etl.stages.augment.affine import GREY, AugmentedImage
from etl.stages.augment.labelled_image import MARGIN, LabelledImage
from etl.stages.augment.recipe import PastedObject

MAX_PASTED = 8  # objects pasted into one sample
_SCALE = (0.8, 1.25)  # of an object
_TRIES = 16  # random places for each object
_MAX_DIFFERENCE = 40.0  # of 255, in mean and deviation of the colour, up to which two backgrounds are similar


def count_pastes(sides: NDArray[np.float64], boost: float) -> NDArray[np.int64]:
    """Return how many objects of each size bucket below 32 px [3] to paste into a sample with labels of these sides.

    Each bucket grows to `boost` times its labels, by at most 8 objects in all; if that adds none, one object of the
    most frequent bucket is added.
    """
    counts = np.bincount(bx.bucket(sides), minlength=len(bx.BUCKETS))[: bx.SMALL_BUCKETS]
    added: NDArray[np.int64] = np.floor(counts * (boost - 1) + 0.5).astype(np.int64)
    while added.sum() > MAX_PASTED:
        added[int(np.argmax(added))] -= 1
    if added.sum() == 0:
        added[int(np.argmax(counts)) if counts.any() else bx.SMALL_BUCKETS - 1] = 1
    return added


def paste_small(
    target: AugmentedImage, sources: Sequence[LabelledImage], boost: float, rng: np.random.Generator
) -> AugmentedImage:
    """Return the target with small objects of the sources pasted where they touch no label and no ignore region."""
    chosen = _choose(sources, count_pastes(bx.side_length(target.boxes), boost), rng)
    pixels, occupied = target.pixels.copy(), bx.as_boxes([*target.boxes, *target.ignore])
    boxes: list[NDArray[np.float64]] = []
    rows: list[int] = []
    pasted: list[PastedObject] = []
    for source, row in chosen:
        patch, box, scale, mirrored = _patch(source, row, rng)
        corner = _free_place(pixels, patch, occupied, rng)
        if corner is None:
            continue
        _blend(pixels, patch, corner)
        boxes.append(box + np.tile(corner, 2))
        occupied = np.concatenate([occupied, boxes[-1][None]])
        rows.append(source.first + row)
        pasted.append({"image": source.image_id, "scale": round(scale, 4), "mirror": mirrored})
    return replace(
        target,
        pixels=pixels,
        boxes=np.concatenate([target.boxes, bx.as_boxes(boxes)]),
        rows=np.concatenate([target.rows, np.array(rows, dtype=np.int64)]),
        visibility=np.concatenate([target.visibility, np.ones(len(rows))]),
        parameters={**target.parameters, "pasted": pasted},
    )


def _blend(pixels: Pixels, patch: Pixels, corner: tuple[int, int]) -> None:
    """Write a patch with feathered borders into pixels at a corner (x, y)."""
    h, w = patch.shape[:2]
    x, y = corner
    alpha = _feather(h, w)[..., None]
    background = pixels[y : y + h, x : x + w].astype(np.float32)
    pixels[y : y + h, x : x + w] = np.rint(patch * alpha + background * (1 - alpha)).astype(np.uint8)


def _choose(
    sources: Sequence[LabelledImage], counts: NDArray[np.int64], rng: np.random.Generator
) -> list[tuple[LabelledImage, int]]:
    """Return random objects, as many of each size bucket as asked; of any small size where a bucket has none."""
    owner = np.repeat(np.arange(len(sources)), [source.pasteable.size for source in sources])
    if owner.size == 0:
        return []
    rows = np.concatenate([source.pasteable for source in sources])
    sizes = np.concatenate([source.pasteable_sizes for source in sources])
    chosen = []
    for bucket, count in enumerate(counts):
        candidates = np.flatnonzero(sizes == bucket)
        candidates = candidates if candidates.size else np.arange(owner.size)
        chosen += [(sources[owner[index]], int(rows[index])) for index in rng.choice(candidates, int(count))]
    return chosen


def _patch(
    source: LabelledImage, row: int, rng: np.random.Generator
) -> tuple[Pixels, NDArray[np.float64], float, bool]:
    """Return an object with its margin, resized and possibly mirrored; its box in the patch; scale; mirrored or not."""
    box = source.boxes[row]
    x0, y0 = np.floor(box[:2]).astype(int) - MARGIN
    x1, y1 = np.ceil(box[2:]).astype(int) + MARGIN
    patch, inner = source.pixels[y0:y1, x0:x1], box - np.array([x0, y0, x0, y0])
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
    return patch, inner, scale, mirrored


def _free_place(pixels: Pixels, patch: Pixels, occupied: bx.Boxes, rng: np.random.Generator) -> tuple[int, int] | None:
    """Return the corner (x, y) of the free place whose background is most similar to the patch's border, else None."""
    height, width = pixels.shape[:2]
    h, w = patch.shape[:2]
    if h >= height or w >= width:
        return None
    patch_mean, patch_deviation = cv2.meanStdDev(_border(patch)[None])
    best, least = None, _MAX_DIFFERENCE
    for x, y in zip(rng.integers(width - w, size=_TRIES), rng.integers(height - h, size=_TRIES), strict=True):
        if occupied.size and bx.intersection(bx.as_boxes([x, y, x + w, y + h]), occupied).any():
            continue
        background = _border(pixels[y : y + h, x : x + w])
        if (background == GREY).all(axis=1).any():  # outside the image
            continue
        mean, deviation = cv2.meanStdDev(background[None])
        difference = float(np.abs(mean - patch_mean).mean() + np.abs(deviation - patch_deviation).mean())
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
