"""Mosaics: four views at native scale around a random centre, one of the sample's own image, three of its donors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.config import Augment
from etl.plan import TilePlan, Window
from etl.stages.augment.affine import Scene, choose_pose, inside, look, view_at
from etl.stages.augment.labelled_image import Picture

MIN_SIDE = 64  # px: a lesser window is no room for four views
_CENTRE = (0.3, 0.7)  # of the sample's side
_SPREAD = 0.9  # of the room an object has in its view


def mosaic(
    own: Picture,
    donors: Sequence[Callable[[], Picture]],
    window: Window,
    plan: TilePlan,
    config: Augment,
    rng: np.random.Generator,
) -> Scene:
    """Return a sample as large as the window: an object of the window and three of donors (or its own), each in a view.

    Nothing is made smaller. Objects the views' borders cut are labels or ignore regions by the plan's visibility.
    """
    width, height = window.x1 - window.x0, window.y1 - window.y0
    cx, cy = _between(width, rng), _between(height, rng)
    quadrants = [(0, 0, cx, cy), (cx, 0, width, cy), (0, cy, cx, height), (cx, cy, width, height)]
    first = int(rng.integers(4))
    pixels = np.empty((height, width, 3), np.uint8)
    views = []
    for number in range(4):
        x0, y0, x1, y1 = quadrants[(first + number) % 4]
        picture = own if number == 0 or not donors else donors[number % len(donors)]()
        scene = _view(picture, window if number == 0 else None, (x1 - x0, y1 - y0), plan, config, rng)
        pixels[y0:y1, x0:x1] = scene.pixels
        views.append((scene, np.array([x0, y0, x0, y0]), picture.image_id))
    return Scene(
        pixels,
        np.concatenate([scene.boxes + corner for scene, corner, _ in views]),
        np.concatenate([scene.rows for scene, _, _ in views]),
        np.concatenate([scene.visibility for scene, _, _ in views]),
        np.concatenate([scene.ignore + corner for scene, corner, _ in views]),
        np.concatenate([scene.ignored for scene, _, _ in views]),
        {
            "centre": [cx, cy],
            "views": [
                {"image": image, "corner": corner[:2].tolist(), **scene.parameters} for scene, corner, image in views
            ],
        },
    )


def _between(side: int, rng: np.random.Generator) -> int:
    low, high = (round(side * share) for share in _CENTRE)
    return int(rng.integers(low, high + 1))


def _view(
    picture: Picture,
    window: Window | None,
    size_wh: tuple[int, int],
    plan: TilePlan,
    config: Augment,
    rng: np.random.Generator,
) -> Scene:
    """Return a view of this size around a labelled object, of those in a window if one is given."""
    box = _object(picture, window, plan.min_visibility, config, rng)
    size = np.array(size_wh, dtype=np.float64)
    room = np.maximum(size - (box[2:] - box[:2]), 0) / 2 * _SPREAD
    centre = inside((box[:2] + box[2:]) / 2 + rng.uniform(-1, 1, 2) * room, size_wh, picture)
    x0, y0, x1, y1 = np.rint(np.concatenate([centre - size / 2, centre + size / 2])).astype(int).tolist()
    pose = choose_pose(picture, Window(x0, y0, x1, y1), config, rng, zoom=1.0)
    return look(picture, view_at(centre, size_wh, pose), plan.min_visibility)


def _object(
    picture: Picture, window: Window | None, min_visibility: float, config: Augment, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the box of a random label, rather a small one; a point anywhere in a picture without any."""
    may = ~picture.ignore
    if window is not None:
        may = may & (bx.visibility(picture.boxes, window) >= min_visibility)
    rows = np.flatnonzero(may)
    if rows.size == 0:
        point = rng.random(2) * picture.pixels.shape[1::-1]
        return np.concatenate([point, point])
    height, width = picture.pixels.shape[:2]
    boxes = bx.clip(picture.boxes[rows], (0, 0, width, height))
    weight = np.where(bx.side_length(boxes) < bx.SMALL, config.oversample_small, 1.0)
    chosen: NDArray[np.float64] = boxes[rng.choice(rows.size, p=weight / weight.sum())]
    return chosen
