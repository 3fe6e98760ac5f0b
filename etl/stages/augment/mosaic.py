"""Mosaics (Bochkovskiy et al. 2020, 2004.10934), at native scale: a view of the own image and three of its donors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.config import Augment
from etl.plan import TilePlan, Window
from etl.stages.augment.affine import AffineView, AugmentedImage, choose_transform, clamp_centre, make_view, render
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.recipe import MosaicView

MIN_SIDE = 64  # px: a smaller window has no room for four views
_CENTRE = (0.3, 0.7)  # range of the mosaic's centre, as a share of the sample's side
_SPREAD = 0.9  # share of the free space in a view over which its object is shifted


def make_mosaic(
    own: LabelledImage,
    donors: Sequence[Callable[[], LabelledImage]],
    window: Window,
    plan: TilePlan,
    config: Augment,
    rng: np.random.Generator,
) -> AugmentedImage:
    """Return a sample of the window's size: a view of the window and one of each of three donors.

    With fewer donors some images have several views, the own one included.

    Nothing is downscaled. An object cut by the border of its view is a label or an ignore region by the plan's
    `min_visibility`.
    """
    width, height = window.x1 - window.x0, window.y1 - window.y0
    cx, cy = _random_between(width, rng), _random_between(height, rng)
    quadrants = [(0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height)]
    first, images = int(rng.integers(4)), 1 + min(len(donors), 3)
    pixels = np.empty((height, width, 3), np.uint8)
    rendered, offsets = [], []
    views: list[MosaicView] = []
    for number in range(4):
        x0, y0, x1, y1 = quadrants[(first + number) % 4]
        image = own if number % images == 0 else donors[number % images - 1]()
        view = _choose_view(image, window if number == 0 else None, (x1 - x0, y1 - y0), plan, config, rng)
        part = render(image, view, plan.min_visibility)
        pixels[y0:y1, x0:x1] = part.pixels
        rendered.append(part)
        offsets.append(np.array([x0, y0, x0, y0]))
        views.append({"image": image.image_id, "corner": [x0, y0], **view.parameters})
    return AugmentedImage(
        pixels=pixels,
        boxes=np.concatenate([part.boxes + offset for part, offset in zip(rendered, offsets, strict=True)]),
        rows=np.concatenate([part.rows for part in rendered]),
        visibility=np.concatenate([part.visibility for part in rendered]),
        ignore=np.concatenate([part.ignore + offset for part, offset in zip(rendered, offsets, strict=True)]),
        ignored=np.concatenate([part.ignored for part in rendered]),
        parameters={"centre": [cx, cy], "views": views},
    )


def _random_between(side: int, rng: np.random.Generator) -> int:
    low, high = (round(side * share) for share in _CENTRE)
    return int(rng.integers(low, high + 1))


def _choose_view(
    image: LabelledImage,
    window: Window | None,
    size_wh: tuple[int, int],
    plan: TilePlan,
    config: Augment,
    rng: np.random.Generator,
) -> AffineView:
    """Return a view of this size around a labelled object, one of the window's if a window is given."""
    box = _choose_object(image, window, plan.min_visibility, config, rng)
    size = np.array(size_wh, dtype=np.float64)
    room = np.maximum(size - (box[2:] - box[:2]), 0) / 2 * _SPREAD
    centre = clamp_centre((box[:2] + box[2:]) / 2 + rng.uniform(-1, 1, 2) * room, size_wh, image)
    x0, y0, x1, y1 = np.rint(np.concatenate([centre - size / 2, centre + size / 2])).astype(int).tolist()
    transform = choose_transform(image, Window(x0, y0, x1, y1), config, rng, zoom=1.0)
    return make_view(centre, size_wh, transform)


def _choose_object(
    image: LabelledImage, window: Window | None, min_visibility: float, config: Augment, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the box [4] of a random label, small ones preferred; a random point in an image without labels."""
    eligible = ~image.ignore
    if window is not None:
        eligible = eligible & (bx.visibility(image.boxes, window) >= min_visibility)
    rows = np.flatnonzero(eligible)
    if rows.size == 0:
        point = rng.random(2) * image.pixels.shape[1::-1]
        return np.concatenate([point, point])
    height, width = image.pixels.shape[:2]
    boxes = bx.clip(image.boxes[rows], (0, 0, width, height))
    weight = np.where(bx.side_length(boxes) < bx.SMALL, config.oversample_small, 1.0)
    chosen: NDArray[np.float64] = boxes[rng.choice(rows.size, p=weight / weight.sum())]
    return chosen
