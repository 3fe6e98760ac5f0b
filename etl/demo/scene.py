"""Synthetic aerial scenes: vehicles with exact boxes, look-alikes, and a camera model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from etl.demo import SIDE, sprites, terrain
from etl.demo.sprites import Box, Image, Points
from etl.demo.terrain import Canvas, Site

MIN_LENGTH = 6.0  # smallest sqrt(w * h) of a visible object, pixels
MAX_SIDE = 60.0  # longest side of an object, pixels
MAX_IOU = 0.3  # of the boxes of two objects
MIN_VISIBLE = 0.5  # share of an object's box inside the image

# where each kind is placed, by share
_PLACES: dict[str, dict[str, float]] = {
    "car": {"lot": 0.45, "road": 0.4, "open": 0.15},
    "truck": {"road": 0.55, "yard": 0.45},
    "boat": {"water": 1.0},
    "motorbike": {"road": 0.6, "lot": 0.15, "open": 0.25},
    "skylight": {"roof": 1.0},
    "air_conditioner": {"roof": 1.0},
    "bale": {"open": 1.0},
    "rock": {"open": 1.0},
    "marking": {"road": 1.0},
    "container": {"yard": 1.0},
    "pontoon": {"water": 1.0},
}
_MIX = {"car": 0.42, "truck": 0.18, "boat": 0.18, "motorbike": 0.22}
LOOK_ALIKES = {
    "skylight": 0.2,
    "air_conditioner": 0.2,
    "bale": 0.16,
    "rock": 0.16,
    "marking": 0.1,
    "container": 0.09,
    "pontoon": 0.09,
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One labelled object: its box clipped to the image, its whole box, and its contrast 0 to 1."""

    category: str
    box: Box
    whole: Box
    contrast: float


@dataclass(frozen=True, slots=True)
class Scene:
    """An image [H, W, 3] RGB and every object in it."""

    image: NDArray[np.uint8]
    objects: tuple[Drawn, ...]


def draw(rng: Generator, place: Site, objects: int, side: int = SIDE) -> Scene:
    """Return one image of the site, `side` pixels both ways, with about this many vehicles per SIDE * SIDE pixels.

    Vehicles are as large in pixels as in an image of the default side; `objects` 0 gives an image without any.
    """
    canvas = terrain.landscape(rng, place, side)
    drawn: list[Drawn] = []
    for _ in range(canvas.per_area(int(rng.integers(10, 18)))):
        _stand(rng, canvas, LOOK_ALIKES, [])
    for _ in range(canvas.per_area(objects)):
        _stand(rng, canvas, _MIX, drawn)
    return Scene(_photograph(rng, canvas.rgb), tuple(drawn))


def _stand(rng: Generator, canvas: Canvas, mix: Mapping[str, float], drawn: list[Drawn]) -> None:
    """Paint one object of the mix at a suitable place, in place; append it to `drawn` if it is a vehicle."""
    shares = np.array(list(mix.values()))
    name = str(rng.choice(list(mix), p=shares / shares.sum()))
    for _ in range(40):
        kinds = _PLACES[name]
        spots = canvas.spots.get(str(rng.choice(list(kinds), p=list(kinds.values()))), [])
        if not spots:
            continue
        x, y, heading = spots[int(rng.integers(len(spots)))]
        thing = sprites.place(_thing(rng, name, canvas.scale), x, y, heading)
        box = sprites.visible_hull(thing, canvas.side, canvas.side)
        if box is None or not _is_free(canvas, thing, "water" in kinds) or not _fits(thing, box, drawn):
            continue
        contrast = float(np.clip(rng.beta(2.6, 0.7), 0.12, 1)) if name in _MIX else float(rng.uniform(0.6, 1))
        sprites.paint(canvas.rgb, thing, canvas.site.sun, contrast)
        terrain.claim(canvas.taken, _grown(sprites.outline_of(thing), 1.5))
        if name in _MIX:
            drawn.append(Drawn(name, box, sprites.hull(thing), contrast))
        return


def _thing(rng: Generator, name: str, scale: float) -> sprites.Sprite:
    return sprites.vehicle(rng, name, scale) if name in _MIX else sprites.look_alike(rng, name, scale)


def _grown(points: Points, pixels: float) -> Points:
    """Return the polygon with every corner moved outwards by this many pixels."""
    spokes = points - points.mean(axis=0)
    lengths: Points = np.hypot(spokes[:, :1], spokes[:, 1:])
    grown: Points = points + spokes / lengths * pixels
    return grown


def _is_free(canvas: Canvas, thing: sprites.Sprite, floats: bool) -> bool:
    """Return whether the place is free, and water if and only if the object floats."""
    covered = sprites.coverage(sprites.outline_of(thing), canvas.side, canvas.side)
    if covered is None:
        return False
    rows, columns, share = covered
    blocked = canvas.taken[rows, columns] | (canvas.water[rows, columns] != floats)
    return not bool(blocked[share > 0].any())


def _fits(thing: sprites.Sprite, box: Box, drawn: list[Drawn]) -> bool:
    """Return whether the object is large and visible enough and overlaps the others little."""
    x0, y0, x1, y1 = box
    a0, b0, a1, b1 = sprites.hull(thing)
    area, whole = (x1 - x0) * (y1 - y0), (a1 - a0) * (b1 - b0)
    if area < MIN_LENGTH**2 or area < MIN_VISIBLE * whole or max(a1 - a0, b1 - b0) > MAX_SIDE:
        return False
    for other in drawn:
        c0, d0, c1, d1 = other.box
        shared = max(0.0, min(x1, c1) - max(x0, c0)) * max(0.0, min(y1, d1) - max(y0, d0))
        if shared > MAX_IOU * (area + (c1 - c0) * (d1 - d0) - shared):
            return False
    return True


def _photograph(rng: Generator, rgb: Image) -> NDArray[np.uint8]:
    """Return the photograph of a scene, with lens blur, exposure and sensor noise."""
    photo = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.35, 0.6)))
    photo = photo * np.float32(rng.uniform(0.88, 1.12)) + np.float32(rng.uniform(-6, 8))
    photo += rng.standard_normal(photo.shape, dtype=np.float32) * np.float32(rng.uniform(1.5, 3.5))
    pixels: NDArray[np.uint8] = np.clip(np.rint(photo), 0, 255).astype(np.uint8)
    return pixels
