"""The ground of a synthetic aerial scene: fields, water, roads, roofs and trees, and places for objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import atan2, cos, pi, sin

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from etl.demo import SIDE, sprites
from etl.demo.sprites import Colour, Image, Points

_FIELDS: tuple[Colour, ...] = (
    (98, 120, 66), (78, 102, 58), (150, 142, 96), (138, 110, 82), (112, 92, 74), (122, 136, 76), (88, 112, 70),
)  # fmt: skip
_PAVED: tuple[Colour, ...] = ((134, 132, 128), (122, 122, 120), (146, 140, 130), (104, 120, 74), (94, 112, 68))
_ROOFS: tuple[Colour, ...] = ((150, 92, 74), (128, 80, 66), (120, 122, 126), (164, 160, 152), (96, 98, 104))
_ASPHALT: Colour = (92, 92, 94)
_CONCRETE: Colour = (146, 143, 136)


@dataclass(frozen=True, slots=True)
class Site:
    """The properties shared by all images of one site."""

    heading: float  # radians, of fields and streets
    scale: float  # pixels per unit; a car is about 15 units long
    urban: float  # 0 country, 1 town
    water: str  # canal, shore, pond or none
    sun: tuple[float, float]  # where shadows point, per unit of height
    fields: tuple[Colour, ...]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A scene being painted: pixels, occupied ground, and places for objects."""

    site: Site
    scale: float
    rgb: Image
    taken: NDArray[np.bool_]  # [H, W] pixels of a thing nothing else may stand on
    built: NDArray[np.bool_]  # [H, W] pixels of roads, lots and water, where no roof or tree may be
    water: NDArray[np.bool_]  # [H, W] open water, where only what floats may be
    spots: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)  # x, y, heading

    @property
    def side(self) -> int:
        """Width and height in pixels."""
        return int(self.rgb.shape[0])

    def per_area(self, count: float) -> int:
        """Return how many things to paint where an image of SIDE has `count`."""
        return round(count * (self.side / SIDE) ** 2)

    def per_side(self, count: float) -> int:
        """Return how many things that cross the image to paint where an image of SIDE has `count`."""
        return round(count * self.side / SIDE)


def site(rng: Generator) -> Site:
    """Return the properties of a random site."""
    urban = float(rng.uniform(0, 1))
    sun, length = rng.uniform(0, 2 * pi), rng.uniform(0.8, 1.4)
    palette = _PAVED if urban > 0.6 else _FIELDS
    chosen = rng.permutation(len(palette))[: rng.integers(3, 6)]
    return Site(
        heading=float(rng.uniform(0, pi)),
        scale=float(rng.uniform(0.95, 1.55)),
        urban=urban,
        water=str(rng.choice(["canal", "shore", "pond"])),
        sun=(length * cos(sun), length * sin(sun)),
        fields=tuple(palette[i] for i in chosen),
    )


def landscape(rng: Generator, place: Site, side: int = SIDE) -> Canvas:
    """Return a painted view of the site, `side` pixels both ways, without vehicles and look-alikes.

    A larger view shows more ground, not larger things.
    """
    canvas = _ground(rng, place, side)
    _water(rng, canvas)
    _pavement(rng, canvas)
    for _ in range(canvas.per_side(int(rng.integers(1, 3)) + (place.urban > 0.5))):
        _road(rng, canvas)
    _roofs(rng, canvas)
    _trees(rng, canvas)
    canvas.spots["open"] = _open_spots(rng, canvas)
    return canvas


def noise(rng: Generator, side: int, coarsest: int, octaves: int, persistence: float = 0.55) -> NDArray[np.float32]:
    """Return smooth noise [side, side] of mean about 0 and deviation about 1; coarsest is in cells per SIDE pixels."""
    total, weight, power = np.zeros((side, side), np.float32), 1.0, 0.0
    for octave in range(octaves):
        cells = min(max(2, round(coarsest * 2**octave * side / SIDE)), side)
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        power += weight**2
        weight *= persistence
    return total / np.float32(power**0.5)


def _axes(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    return x, y


def _ground(rng: Generator, place: Site, side: int) -> Canvas:
    """Return a canvas of fields with colours and furrows."""
    x, y = _axes(side)
    warp = noise(rng, side, 3, 2) * 8
    u = x * cos(place.heading) + y * sin(place.heading) + warp
    v = y * cos(place.heading) - x * sin(place.heading) + warp[::-1]
    long, short = rng.uniform(220, 420), rng.uniform(120, 260)
    strip = np.floor(u / short).astype(np.int64) % 16
    cell = np.floor((v + rng.uniform(0, long, 16)[strip]) / long).astype(np.int64) % 16
    kind = rng.integers(len(place.fields), size=(16, 16))[strip, cell]
    rgb = np.array(place.fields, np.float32)[kind]
    furrow = rng.uniform(0, 6, (16, 16)).astype(np.float32)[strip, cell] * (1 - place.urban)
    rgb += (furrow * np.sin(u * 2 * pi / rng.uniform(5, 9)))[..., None]
    rgb += (noise(rng, side, 5, 7, 0.72) * 8)[..., None]
    rgb += noise(rng, side, 4, 4)[..., None] * np.array([5, 3, 2], np.float32)
    scale = place.scale * float(rng.uniform(0.94, 1.06))
    empty = np.zeros((side, side), np.bool_)
    return Canvas(place, scale, rgb, empty, empty.copy(), empty.copy())


def _water(rng: Generator, canvas: Canvas) -> None:
    """Paint a canal, a shore or a pond with its concrete edge, in place."""
    if rng.random() < 0.2:
        return
    side = canvas.side
    x, y = _axes(side)
    angle = canvas.site.heading + (pi / 2 if rng.random() < 0.5 else 0)
    across = (x - side / 2) * -sin(angle) + (y - side / 2) * cos(angle) + noise(rng, side, 3, 3) * 6
    if canvas.site.water == "canal":
        depth = rng.uniform(45, 75) - np.abs(across - rng.uniform(-220, 220) * (side / SIDE))
    elif canvas.site.water == "shore":
        depth = across - rng.uniform(120, 240) * (side / SIDE)
    else:
        centre = rng.uniform(160, side - 160, 2)
        depth = rng.uniform(90, 150) * (1 + 0.25 * noise(rng, side, 4, 3)) - np.hypot(x - centre[0], y - centre[1])
    edge = 5 * canvas.scale
    bank = np.clip(depth + edge, 0, 1)[..., None]
    canvas.rgb[:] += bank * (np.array(_CONCRETE, np.float32) + noise(rng, side, 24, 3)[..., None] * 4 - canvas.rgb)
    share = np.clip(depth, 0, 1)[..., None].astype(np.float32)
    tint = np.array([rng.uniform(40, 62), rng.uniform(76, 98), rng.uniform(92, 116)], np.float32)
    surface = tint + (noise(rng, side, 40, 4, 0.8) * 4 + noise(rng, side, 3, 3) * 5)[..., None]
    canvas.rgb[:] += share * (surface - canvas.rgb)
    canvas.built[depth > -edge - 2] = True
    canvas.water[depth > 0] = True
    rows, columns = np.nonzero(depth > 9 * canvas.scale)
    count = canvas.per_area(300)
    chosen = rng.integers(len(rows), size=count) if len(rows) else ()
    turn = rng.normal(angle, 0.5, count) + pi * rng.integers(0, 2, count)
    canvas.spots["water"] = [(columns[k] + 0.5, rows[k] + 0.5, turn[i]) for i, k in enumerate(chosen)]


def _free_rectangle(
    rng: Generator, canvas: Canvas, length: float, width: float
) -> tuple[float, float, float, Points] | None:
    """Return x, y, heading and corners of a rectangle on free ground; None if none was found."""
    for _ in range(12):
        x, y = rng.uniform(-20, canvas.side + 20, 2)
        heading = canvas.site.heading + pi / 2 * rng.integers(0, 2) + rng.normal(0, 0.03)
        corners = sprites.rectangle(x, y, length, width, heading)
        grown = sprites.rectangle(x, y, length + 10, width + 10, heading)
        covered = sprites.coverage(grown, canvas.side, canvas.side)
        if covered is not None and not canvas.built[covered[0], covered[1]][covered[2] > 0].any():
            return float(x), float(y), float(heading), corners
    return None


def claim(mask: NDArray[np.bool_], points: Points) -> None:
    """Set every pixel the polygon touches, in place."""
    covered = sprites.coverage(points, mask.shape[1], mask.shape[0])
    if covered is not None:
        mask[covered[0], covered[1]] |= covered[2] > 0


def _pavement(rng: Generator, canvas: Canvas) -> None:
    """Paint car parks with stalls and yards of concrete, in place."""
    s = canvas.scale
    lots, yards = canvas.spots.setdefault("lot", []), canvas.spots.setdefault("yard", [])
    for _ in range(canvas.per_area(1 + int(rng.random() < 0.3 + canvas.site.urban))):
        stalls, rows = int(rng.integers(7, 15)), int(rng.integers(1, 3))
        pitch, depth = 9.6 * s, 19 * s
        found = _free_rectangle(rng, canvas, stalls * pitch + 6 * s, rows * depth + 16 * s)
        if found is None:
            continue
        x, y, heading, corners = found
        sprites.fill(canvas.rgb, corners, sprites.pick(rng, [_ASPHALT]), 0.94)
        claim(canvas.built, corners)
        along, across = np.array([cos(heading), sin(heading)]), np.array([-sin(heading), cos(heading)])
        for row in range(rows):
            middle = np.array([x, y]) + across * ((row - (rows - 1) / 2) * (depth + 14 * s))
            for stall in range(stalls + 1):
                line = middle + along * ((stall - stalls / 2) * pitch)
                sprites.fill(
                    canvas.rgb, sprites.rectangle(line[0], line[1], depth, 0.9, heading + pi / 2), (200, 200, 196), 0.7
                )
                if stall < stalls:
                    car = line + along * pitch / 2 + rng.normal(0, 0.4, 2)
                    lots.append((car[0], car[1], heading + pi / 2 * (1 if rng.random() < 0.5 else -1)))
    for _ in range(canvas.per_area(1 + int(rng.random() < 0.6))):
        found = _free_rectangle(rng, canvas, rng.uniform(90, 160), rng.uniform(70, 120))
        if found is not None:
            x, y, heading, corners = found
            sprites.fill(canvas.rgb, corners, sprites.pick(rng, [_CONCRETE]), 0.9)
            claim(canvas.built, corners)
            middle = corners.mean(axis=0)
            for _ in range(40):
                inside = middle + (corners - middle).T @ rng.dirichlet(np.ones(4)) * 1.1
                yards.append((inside[0], inside[1], heading + pi / 2 * rng.integers(0, 4)))


def _road(rng: Generator, canvas: Canvas) -> None:
    """Paint a bent road with markings from border to border, in place."""
    lane, side = 12 * canvas.scale, canvas.side
    angle = canvas.site.heading + pi / 2 * rng.integers(0, 2) + rng.normal(0, 0.12)
    middle = rng.uniform(0.2 * side, 0.8 * side, 2)
    reach, bend = 1.2 * side * np.array([cos(angle), sin(angle)]), rng.normal(0, 70)
    t = np.linspace(-1, 1, 160)[:, None]
    path = middle + t * reach + bend * t**2 * np.array([-sin(angle), cos(angle)])  # [160, 2]
    mask = np.zeros((side * 2, side * 2), np.uint8)
    line = [np.rint(path * 2 * 16).astype(np.int32)]
    cv2.polylines(mask, line, False, 255, round(2 * lane * 2), cv2.LINE_AA, shift=4)
    share = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    tar = np.array(sprites.pick(rng, [_ASPHALT]), np.float32) + (noise(rng, side, 30, 4, 0.8) * 3.5)[..., None]
    canvas.rgb[:] += share * (tar - canvas.rgb)
    canvas.built[share[..., 0] > 0] = True
    canvas.water[share[..., 0] > 0] = False  # a bridge
    _markings(rng, canvas, path, lane)


def _markings(rng: Generator, canvas: Canvas, path: Points, lane: float) -> None:
    """Paint the lines of a road of two lanes along a path [N, 2], in place, and record where vehicles may drive."""
    step = 5 * canvas.scale
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    places = canvas.spots.setdefault("road", [])
    for count, distance in enumerate(np.arange(0, along[-1], step)):
        x, y = np.interp(distance, along, path[:, 0]), np.interp(distance, along, path[:, 1])
        if not (-30 < x < canvas.side + 30 and -30 < y < canvas.side + 30):
            continue
        k = min(int(np.searchsorted(along, distance)), len(path) - 2)
        heading = atan2(*(path[k + 1] - path[k])[::-1])
        left, down = -sin(heading), cos(heading)
        if count % 4 == 0:
            dash = sprites.rectangle(x, y, 1.6 * step, 1.1, heading)
            sprites.fill(canvas.rgb, dash, (206, 206, 200), 0.85)
        for side in (-1, 1):
            edge, off = side * (lane - 1.5), side * (lane / 2 + rng.normal(0, 0.6))
            line = sprites.rectangle(x + edge * left, y + edge * down, 1.04 * step, 0.9, heading)
            sprites.fill(canvas.rgb, line, (190, 190, 186), 0.7)
            drives = heading + (pi if side < 0 else 0) + rng.normal(0, 0.04)
            places.append((x + off * left, y + off * down, drives))


def _roofs(rng: Generator, canvas: Canvas) -> None:
    """Paint buildings with pitched or flat roofs and their shadows, in place."""
    s = canvas.scale
    places = canvas.spots.setdefault("roof", [])
    for _ in range(canvas.per_area(int(rng.integers(3, 6) + 9 * canvas.site.urban))):
        length, width = s * rng.uniform(45, 95), s * rng.uniform(32, 58)
        found = _free_rectangle(rng, canvas, length, width)
        if found is None:
            continue
        x, y, heading, corners = found
        sprites.cast(canvas.rgb, corners, canvas.site.sun, s * rng.uniform(9, 16), 0.5)
        roof, flat = sprites.pick(rng, _ROOFS), rng.random() < 0.6
        sprites.fill(canvas.rgb, corners, roof)
        if flat:
            sprites.fill(canvas.rgb, sprites.rectangle(x, y, length - 4, width - 4, heading), sprites.shade(roof, 0.92))
            places += [
                (x + a * cos(heading) - b * sin(heading), y + a * sin(heading) + b * cos(heading), heading)
                for a in np.arange(-length / 2 + 12 * s, length / 2 - 11 * s, 17 * s)
                for b in np.arange(-width / 2 + 8 * s, width / 2 - 7 * s, 13 * s)
            ]
        else:
            lit = cos(heading + pi / 2) * canvas.site.sun[0] + sin(heading + pi / 2) * canvas.site.sun[1]
            half = sprites.rectangle(
                x - width / 4 * sin(heading), y + width / 4 * cos(heading), length, width / 2, heading
            )
            sprites.fill(canvas.rgb, half, sprites.shade(roof, 0.78 if lit > 0 else 1.16))
            claim(canvas.taken, corners)
        claim(canvas.built, sprites.rectangle(x, y, length + 8, width + 8, heading))


def _trees(rng: Generator, canvas: Canvas) -> None:
    """Paint groups of trees with their shadows, in place."""
    s = canvas.scale
    for _ in range(canvas.per_area(int(rng.integers(5, 12)))):
        group = rng.uniform(0, canvas.side, 2)
        for x, y in group + rng.normal(0, 22 * s, (int(rng.integers(2, 8)), 2)):
            radius = s * rng.uniform(6, 13)
            crown = sprites.ellipse(x, y, 2 * radius, 2 * radius)
            covered = sprites.coverage(crown, canvas.side, canvas.side)
            if covered is None or canvas.built[covered[0], covered[1]].any():
                continue
            sprites.cast(canvas.rgb, crown, canvas.site.sun, radius * 1.1, 0.45)
            green = sprites.pick(rng, ((52, 76, 40), (64, 88, 44), (44, 66, 42)))
            sprites.fill(canvas.rgb, crown, green)
            for dx, dy in rng.normal(0, radius * 0.38, (14, 2)):
                leaf = sprites.ellipse(x + dx, y + dy, radius * 0.6, radius * 0.6, 9)
                sprites.fill(canvas.rgb, leaf, sprites.shade(green, float(rng.uniform(0.78, 1.3))), 0.8)
            claim(canvas.taken, crown)


def _open_spots(rng: Generator, canvas: Canvas) -> list[tuple[float, float, float]]:
    rows, columns = np.nonzero(~(canvas.built | canvas.taken))
    chosen = rng.integers(len(rows), size=canvas.per_area(200)) if len(rows) else ()
    return [(columns[k] + 0.5, rows[k] + 0.5, float(rng.uniform(0, 2 * pi))) for k in chosen]
