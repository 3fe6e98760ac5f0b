"""Vehicles and look-alikes of the synthetic scenes: flat coloured polygons seen from above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [N, 2] x y, pixels
Image = NDArray[np.float32]  # [H, W, 3] RGB 0..255
Colour = tuple[float, float, float]
Box = tuple[float, float, float, float]

SUPERSAMPLING = 8  # coverage samples per pixel and axis
CATEGORIES = ("car", "truck", "boat", "motorbike")

_GLASS: Colour = (24, 30, 38)
_CAR_PAINT: tuple[Colour, ...] = (
    (236, 236, 238), (205, 208, 212), (188, 24, 28), (28, 62, 172), (18, 18, 22), (222, 176, 30),
    (235, 235, 230), (150, 20, 40), (20, 110, 150),
)  # fmt: skip
_BOX_PAINT: tuple[Colour, ...] = ((244, 244, 240), (238, 236, 226), (226, 232, 240), (236, 206, 90), (90, 150, 214))
_CAB_PAINT: tuple[Colour, ...] = ((196, 30, 30), (30, 70, 180), (232, 120, 24), (34, 120, 60))
_JACKET: tuple[Colour, ...] = ((250, 96, 20), (230, 20, 60), (210, 240, 40), (255, 190, 20))


@dataclass(frozen=True, slots=True)
class Part:
    """One convex polygon of one colour."""

    points: Points
    colour: Colour


@dataclass(frozen=True, slots=True)
class Sprite:
    """Parts from the bottom up, and the height above ground in pixels, which the shadow shows."""

    parts: tuple[Part, ...]
    height: float


def vehicle(rng: Generator, category: str, scale: float) -> Sprite:
    """Return a vehicle of one of CATEGORIES at the origin, its front towards +x; scale is in pixels per unit."""
    return _BUILDERS[category](rng, scale)


def look_alike(rng: Generator, kind: str, scale: float) -> Sprite:
    """Return an unlabelled object of the size of a vehicle at the origin; `kind` as in scene.LOOK_ALIKES."""
    return _BUILDERS[kind](rng, scale)


def place(sprite: Sprite, x: float, y: float, heading: float) -> Sprite:
    """Return the sprite turned by heading (radians, x towards y) and moved to the point."""
    turn = np.array([[cos(heading), sin(heading)], [-sin(heading), cos(heading)]])
    return Sprite(tuple(Part(p.points @ turn + (x, y), p.colour) for p in sprite.parts), sprite.height)


def hull(sprite: Sprite) -> Box:
    """Return the axis-aligned box of all parts."""
    points = np.concatenate([part.points for part in sprite.parts])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def visible_hull(sprite: Sprite, width: int, height: int) -> Box | None:
    """Return the axis-aligned box of the parts inside the image; None if all are outside."""
    visible = [points for part in sprite.parts if len(points := _inside(part.points, width, height))]
    if not visible:
        return None
    points = np.concatenate(visible)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _inside(points: Points, width: int, height: int) -> Points:
    """Return the corners of a convex polygon clipped to the image (Sutherland & Hodgman 1974)."""
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept: list[NDArray[np.float64]] = []
        for a, b in zip(np.roll(points, 1, axis=0), points, strict=True):
            from_a, from_b = sign * (a[axis] - limit), sign * (b[axis] - limit)  # positive inside
            if (from_a < 0) != (from_b < 0):
                crossing = a + (b - a) * from_a / (from_a - from_b)
                crossing[axis] = limit
                kept.append(crossing)
            if from_b >= 0:
                kept.append(b)
        points = np.array(kept).reshape(-1, 2)
    return points


def coverage(points: Points, width: int, height: int) -> tuple[slice, slice, NDArray[np.float32]] | None:
    """Return rows, columns and the coverage of their pixels by the polygon, 0 to 1; None if it is outside the image."""
    points = _inside(points, width, height)  # cv2 draws a polygon that reaches outside inexactly
    if not len(points):
        return None
    (x0, y0), (x1, y1) = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)
    if x1 <= x0 or y1 <= y0:
        return None
    fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING), np.uint8)
    # cv2 counts from pixel centres, in fixed point of 8 fractional bits
    corners = np.rint((((points - (x0, y0)) * SUPERSAMPLING) - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, shift=8)
    share = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return slice(y0, y1), slice(x0, x1), (share / 255).astype(np.float32)


def fill(canvas: Image, points: Points, colour: Colour, opacity: float = 1.0) -> None:
    """Paint one antialiased polygon onto the canvas, in place."""
    covered = coverage(points, canvas.shape[1], canvas.shape[0])
    if covered is not None:
        rows, columns, share = covered
        alpha = share[..., None] * np.float32(opacity)
        canvas[rows, columns] += alpha * (np.array(colour, np.float32) - canvas[rows, columns])


def paint(canvas: Image, sprite: Sprite, sun: tuple[float, float], contrast: float = 1.0) -> None:
    """Paint the shadow, then the parts, in place; contrast 0 gives every part the mean colour of the ground."""
    height, width = canvas.shape[:2]
    outline = outline_of(sprite)
    covered = coverage(outline, width, height)
    if covered is None:
        return
    rows, columns, share = covered
    ground = np.average(canvas[rows, columns].reshape(-1, 3), axis=0, weights=share.reshape(-1) + 1e-6)
    if sprite.height > 0:
        cast(canvas, outline, sun, sprite.height, 0.5 * contrast)
    for part in sprite.parts:
        mixed = ground + contrast * (np.array(part.colour) - ground)
        fill(canvas, part.points, (float(mixed[0]), float(mixed[1]), float(mixed[2])))


def cast(canvas: Image, outline: Points, sun: tuple[float, float], height: float, darkness: float) -> None:
    """Darken the ground shaded by a convex outline of this height, in place; `sun` is the direction of shadows."""
    shaded = np.concatenate([outline, outline + np.array(sun) * height]).astype(np.float32)
    covered = coverage(cv2.convexHull(shaded).reshape(-1, 2).astype(np.float64), canvas.shape[1], canvas.shape[0])
    if covered is not None:
        rows, columns, share = covered
        canvas[rows, columns] *= 1 - np.float32(darkness) * share[..., None]


def outline_of(sprite: Sprite) -> Points:
    """Return the convex hull of all parts [N, 2]."""
    points = np.concatenate([part.points for part in sprite.parts]).astype(np.float32)
    return cv2.convexHull(points).reshape(-1, 2).astype(np.float64)


def rectangle(x: float, y: float, length: float, width: float, heading: float = 0.0) -> Points:
    """Return the corners [4, 2] of a rectangle around a point, its length along the heading."""
    along = np.array([cos(heading), sin(heading)]) * length / 2
    across = np.array([-sin(heading), cos(heading)]) * width / 2
    corners: Points = np.array([along + across, along - across, -along - across, across - along])
    corners += (x, y)
    return corners


def ellipse(x: float, y: float, length: float, width: float, corners: int = 14) -> Points:
    """Return the corners [N, 2] of an ellipse around a point."""
    angle = np.arange(corners) * 2 * pi / corners
    return np.stack([x + length / 2 * np.cos(angle), y + width / 2 * np.sin(angle)], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour times a factor, at most white."""
    r, g, b = (min(255.0, c * factor) for c in colour)
    return r, g, b


def pick(rng: Generator, colours: Sequence[Colour]) -> Colour:
    """Return one of the colours, a little brighter or darker."""
    return shade(colours[int(rng.integers(len(colours)))], float(rng.uniform(0.9, 1.08)))


def _rounded(x: float, y: float, length: float, width: float, corner: float) -> Points:
    l, w, c = length / 2, width / 2, min(corner, length / 2, width / 2)  # noqa: E741
    right = [(l, c - w), (l, w - c), (l - c, w), (c - l, w), (-l, w - c), (-l, c - w), (c - l, -w), (l - c, -w)]
    corners: Points = np.array(right, np.float64)
    corners += (x, y)
    return corners


def _car(rng: Generator, scale: float) -> Sprite:
    length, width = scale * rng.uniform(13.5, 16.5), scale * rng.uniform(6.6, 7.6)
    body = pick(rng, _CAR_PAINT)
    return Sprite(
        (
            Part(_rounded(0, 0, length, width, width * 0.28), body),
            Part(_rounded(-0.06 * length, 0, 0.62 * length, 0.86 * width, width * 0.2), _GLASS),
            Part(rectangle(-0.08 * length, 0, 0.34 * length, 0.72 * width), shade(body, 1.06)),
        ),
        scale * 2.6,
    )


def _truck(rng: Generator, scale: float) -> Sprite:
    length, width = min(scale * rng.uniform(26, 38), 57.0), scale * rng.uniform(9.0, 10.5)
    cab = 0.21 * length
    load, paint_ = pick(rng, _BOX_PAINT), pick(rng, _CAB_PAINT)
    front, gap = length / 2, 0.05 * length
    box = length - cab - gap
    ribs = [
        Part(rectangle(-front + box * share, 0, 0.022 * length, 0.9 * width), shade(load, 0.82))
        for share in (0.2, 0.4, 0.6, 0.8)
    ]
    return Sprite(
        (
            Part(rectangle(0, 0, length * 0.9, 0.5 * width), (30, 30, 32)),
            Part(rectangle(-front + box / 2, 0, box, width), load),
            *ribs,
            Part(_rounded(front - cab / 2, 0, cab, 0.92 * width, width * 0.16), paint_),
            Part(rectangle(front - 0.24 * cab, 0, 0.28 * cab, 0.78 * width), _GLASS),
        ),
        scale * 5.5,
    )


def _boat(rng: Generator, scale: float) -> Sprite:
    length = min(scale * float(np.clip(rng.lognormal(np.log(21), 0.32), 12, 40)), 57.0)
    width = length * rng.uniform(0.31, 0.38)
    l, w = length / 2, width / 2  # noqa: E741 - half sizes
    painted = pick(rng, ((248, 248, 244), (248, 248, 244), (240, 226, 190), (206, 60, 44)))
    planks = pick(rng, ((176, 132, 84), (150, 108, 66), (60, 92, 150)))
    sides = ((0.45, 1.0), (-0.9, 1.0), (-1.0, 0.7))
    shell = np.array([(1.0, 0.0), *sides, *((x, -y) for x, y in reversed(sides))])
    deck = np.array([(0.62, 0.0), (0.3, 0.6), (-0.8, 0.66), (-0.8, -0.66), (0.3, -0.6)])
    return Sprite(
        (
            Part(shell * (l, w), painted),
            Part(deck * (l, w), planks),
            Part(rectangle(-0.1 * l, 0, 0.5 * l, 0.9 * w), (250, 250, 250)),
            Part(rectangle(0.12 * l, 0, 0.12 * l, 0.8 * w), _GLASS),
        ),
        scale * 2.0,
    )


def _motorbike(rng: Generator, scale: float) -> Sprite:
    length, width = max(scale * rng.uniform(10.0, 12.5), 9.4), max(scale * rng.uniform(4.3, 5.2), 4.2)
    jacket = pick(rng, _JACKET)
    return Sprite(
        (
            Part(ellipse(0, 0, length, 0.5 * width), (16, 16, 18)),
            Part(rectangle(0.26 * length, 0, 0.07 * length, 0.9 * width), (40, 40, 42)),
            Part(ellipse(-0.05 * length, 0, 0.44 * length, width), jacket),
            Part(ellipse(0.02 * length, 0, 0.2 * length, 0.48 * width), (252, 252, 252)),
        ),
        scale * 2.2,
    )


def _skylight(rng: Generator, scale: float) -> Sprite:
    length, width = scale * rng.uniform(11, 16), scale * rng.uniform(5, 7.5)
    glass = pick(rng, ((150, 178, 196), (180, 200, 212)))
    frame = Part(rectangle(0, 0, length, width), (208, 208, 206))
    panes = [Part(rectangle(x * length, 0, 0.38 * length, 0.7 * width), glass) for x in (-0.23, 0.23)]
    return Sprite((frame, *panes), scale * 0.6)


def _air_conditioner(rng: Generator, scale: float) -> Sprite:
    side = scale * rng.uniform(6, 9)
    case = pick(rng, ((184, 186, 186), (206, 206, 202)))
    return Sprite(
        (
            Part(rectangle(0, 0, side * 1.15, side), case),
            Part(ellipse(0, 0, side * 0.74, side * 0.74), (70, 72, 74)),
            Part(ellipse(0, 0, side * 0.26, side * 0.26), case),
        ),
        scale * 1.8,
    )


def _bale(rng: Generator, scale: float) -> Sprite:
    straw = pick(rng, ((206, 180, 112), (192, 164, 98)))
    length, width = scale * rng.uniform(9, 13), scale * rng.uniform(6.5, 7.5)
    lines = [Part(rectangle(0, y * width, length * 0.94, 0.07 * width), shade(straw, 0.82)) for y in (-0.22, 0.22)]
    return Sprite((Part(_rounded(0, 0, length, width, 0.2 * width), straw), *lines), scale * 2.2)


def _rock(rng: Generator, scale: float) -> Sprite:
    stone = pick(rng, ((150, 146, 140), (172, 168, 160), (128, 124, 118)))
    radius = scale * rng.uniform(2.6, 5.5)
    angle = np.arange(9) * 2 * pi / 9
    ring = np.stack([np.cos(angle) * rng.uniform(0.85, 1.5), np.sin(angle)], axis=1)
    ring = ring * radius * rng.uniform(0.85, 1.1, (9, 1))
    lit = Part(outline_of(Sprite((Part(ring * 0.6 - 0.1 * radius, stone),), 0)), shade(stone, 1.14))
    return Sprite((Part(outline_of(Sprite((Part(ring, stone),), 0)), stone), lit), radius * 0.6)


def _marking(rng: Generator, scale: float) -> Sprite:
    length, width = scale * rng.uniform(9, 14), scale * rng.uniform(3.0, 4.4)
    white: Colour = (214, 214, 206)
    head = np.array([(length / 2, 0), (length * 0.1, width / 2), (length * 0.1, -width / 2)])
    return Sprite((Part(rectangle(-0.2 * length, 0, 0.6 * length, 0.34 * width), white), Part(head, white)), 0.0)


def _container(rng: Generator, scale: float) -> Sprite:
    paint_ = pick(rng, ((150, 70, 50), (60, 96, 120), (80, 110, 76), (170, 130, 70)))
    length, width = scale * rng.uniform(20, 26), scale * 8.4
    ribs = [
        Part(rectangle(x * length, 0, 0.03 * length, 0.94 * width), shade(paint_, 0.8))
        for x in np.linspace(-0.42, 0.42, 8)
    ]
    return Sprite((Part(rectangle(0, 0, length, width), paint_), *ribs), scale * 4.0)


def _pontoon(rng: Generator, scale: float) -> Sprite:
    wood = pick(rng, ((150, 128, 100), (168, 150, 124)))
    length, width = scale * rng.uniform(12, 30), scale * rng.uniform(5, 7)
    planks = [
        Part(rectangle(x * length, 0, 0.02 * length, width), shade(wood, 0.78)) for x in (-0.35, -0.12, 0.12, 0.35)
    ]
    return Sprite((Part(rectangle(0, 0, length, width), wood), *planks), scale * 1.0)


_BUILDERS: dict[str, Callable[[Generator, float], Sprite]] = {
    "car": _car,
    "truck": _truck,
    "boat": _boat,
    "motorbike": _motorbike,
    "skylight": _skylight,
    "air_conditioner": _air_conditioner,
    "bale": _bale,
    "rock": _rock,
    "marking": _marking,
    "container": _container,
    "pontoon": _pontoon,
}
