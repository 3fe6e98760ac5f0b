"""Anchors fitted to the sizes of the boxes: best possible recall first, then how well they fit.

A box and an anchor agree by the worse of their two side ratios, taken at most 1; a box is within reach of an anchor
when that is above 1 / RATIO. Under the logarithm this is the distance of the largest difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

VERSION = 1
RATIO = 4.0  # how many times larger or smaller a side may be
MOST_PER_LEVEL = 6
MIN_GAIN = 0.001  # share of boxes one more anchor per level must bring within reach to be worth it

Floats = NDArray[np.float64]
Score = tuple[float, float]  # best possible recall, fitness

_MOST_ROWS = 4096  # of the table the search looks at; the result is measured on every box
_FULL = (1000, 5)  # generations, starts
_QUICK = (150, 3)


@dataclass(frozen=True)
class AnchorFit:
    """Anchors per level, smallest first, in network pixels, and how they suit the boxes; guesses without boxes."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]  # [levels][per level](w, h)
    strides: tuple[int, ...]
    image_size: int
    boxes: int  # sum of the weights; 0 means that nothing was fitted
    bpr: float | None  # share of boxes within reach of an anchor; None without boxes
    aat: float | None  # anchors within reach of a box, on average
    fitness: float | None  # mean over boxes of the best agreement, 0 where out of reach
    bpr_curve: tuple[tuple[int, float], ...]  # anchors per level, best possible recall of a quick fit
    seconds: float = field(default=0.0, compare=False)

    @property
    def fitted(self) -> bool:
        """Whether there were boxes to fit the anchors to."""
        return self.boxes > 0


@dataclass(frozen=True)
class _Boxes:
    """Distinct sizes in canonical order, so that the order they came in changes no bit."""

    wh: Floats  # [N, 2]
    weights: Floats  # [N], sums to the number of boxes


@dataclass(frozen=True)
class _Levels:
    strides: tuple[int, ...]
    per_level: int
    image_size: int

    @property
    def count(self) -> int:
        return len(self.strides) * self.per_level

    @property
    def floors(self) -> Floats:
        """The smallest side of each anchor [k, 1]: half its level's stride."""
        return np.repeat(np.array(self.strides, dtype=np.float64) / 2, self.per_level)[:, None]


def fit(
    wh: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    image_size: int,
    strides: Sequence[int],
    per_level: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> AnchorFit:
    """Return the anchors for boxes of sizes wh [N, 2] in network pixels; equal for equal boxes, whatever their order.

    Boxes without area count for nothing. `auto` takes the fewest anchors per level to which one more would add less
    than 0.1 % of best possible recall.
    """
    started = perf_counter()
    steps = tuple(sorted(int(stride) for stride in strides))
    if not steps or steps[0] <= 0:
        raise ValueError("strides must be positive and at least one")
    boxes = _distinct(wh, weights)
    if not len(boxes.wh):
        return _guess(_Levels(steps, 3 if per_level == "auto" else per_level, image_size))
    coarse = _coarse(boxes)
    curve = tuple(_curve(boxes, coarse, steps, image_size, seed, None if per_level == "auto" else per_level))
    levels = _Levels(steps, _enough(curve) if per_level == "auto" else per_level, image_size)
    anchors, _ = _search(boxes, coarse, levels, seed, *_FULL)
    bpr, aat, fitness = measure(anchors, boxes.wh, boxes.weights)
    return AnchorFit(
        anchors=_by_level(anchors, levels),
        strides=steps,
        image_size=image_size,
        boxes=round(float(boxes.weights.sum())),
        bpr=bpr,
        aat=aat,
        fitness=fitness,
        bpr_curve=curve,
        seconds=perf_counter() - started,
    )


def measure(anchors: ArrayLike, wh: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float, float]:
    """Return best possible recall, anchors within reach per box and fitness of anchors [k, 2] on boxes [N > 0, 2]."""
    sides = np.asarray(wh, dtype=np.float64).reshape(-1, 2)
    weight = np.ones(len(sides)) if weights is None else np.asarray(weights, dtype=np.float64)
    best, reached = np.zeros(len(sides)), np.zeros(len(sides))
    for anchor in np.asarray(anchors, dtype=np.float64).reshape(-1, 2):
        ratio = sides / anchor
        agreement = np.minimum(ratio, 1 / ratio).min(axis=1)
        reached += agreement > 1 / RATIO
        np.maximum(best, agreement, out=best)
    total, hit = float(weight.sum()), best > 1 / RATIO
    bpr, aat, fitness = (float((weight * value).sum()) / total for value in (hit, reached, best * hit))
    return min(bpr, 1.0), aat, min(fitness, 1.0)


def to_json(fitted: AnchorFit) -> dict[str, Any]:
    """Return the fit as the content of anchors.json: the same bytes for the same boxes, so without the time it took."""
    return {
        "anchors": [[list(anchor) for anchor in level] for level in fitted.anchors],
        "strides": list(fitted.strides),
        "per_level": len(fitted.anchors[0]),
        "image_size": fitted.image_size,
        "boxes": fitted.boxes,
        "fitted": fitted.fitted,
        "bpr": fitted.bpr,
        "aat": fitted.aat,
        "fitness": fitted.fitness,
        "bpr_curve": [list(point) for point in fitted.bpr_curve],
    }


def log_form(fitted: AnchorFit) -> str:
    """Return the fit as the two lines that YOLOv5's users know to read."""
    flat = [anchor for level in fitted.anchors for anchor in level]
    sizes = ", ".join(f"{w:g},{h:g}" for w, h in flat)
    where = f"AutoAnchor: n={len(flat)}, img_size={fitted.image_size}, thr={1 / RATIO:.2f}: {sizes}"
    if fitted.bpr is None or fitted.aat is None or fitted.fitness is None:
        return f"AutoAnchor: no boxes to fit, these anchors are guesses from the strides\n{where}"
    figures = f"{fitted.aat:.2f} anchors/target, {fitted.bpr:.4f} Best Possible Recall (BPR)"
    return f"AutoAnchor: {figures}, {fitted.fitness:.4f} fitness, {fitted.boxes} boxes\n{where}"


def _distinct(wh: ArrayLike, weights: ArrayLike | None) -> _Boxes:
    """Return the distinct sizes with their weights, those without area or weight left out."""
    sides = np.asarray(wh, dtype=np.float64).reshape(-1, 2)
    weight = np.ones(len(sides)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
    if len(weight) != len(sides):
        raise ValueError(f"{len(sides)} boxes but {len(weight)} weights")
    good = np.isfinite(sides).all(axis=1) & (sides > 0).all(axis=1) & (weight > 0)
    return _grouped(sides[good], weight[good])


def _grouped(sides: Floats, weight: Floats) -> _Boxes:
    order = np.lexsort((weight, sides[:, 1], sides[:, 0]))  # the weights too: sums must not depend on the order
    sides, weight = sides[order], weight[order]
    new = np.ones(len(sides), dtype=bool)
    new[1:] = (sides[1:] != sides[:-1]).any(axis=1)
    return _Boxes(sides[new], np.add.reduceat(weight, np.flatnonzero(new)) if len(sides) else weight)


def _coarse(boxes: _Boxes) -> _Boxes:
    """Return at most a few thousand sizes that stand for all: the finest grid of part octaves that is small enough."""
    per_octave = 32
    while len(boxes.wh) > _MOST_ROWS:
        cells = np.round(np.log2(boxes.wh) * per_octave)
        smaller = _grouped(np.exp2(cells / per_octave), boxes.weights)
        if len(smaller.wh) <= _MOST_ROWS or per_octave <= 4:
            return smaller
        per_octave //= 2
    return boxes


def _curve(
    boxes: _Boxes, coarse: _Boxes, strides: tuple[int, ...], image_size: int, seed: int, wanted: int | None
) -> Iterator[tuple[int, float]]:
    """Yield best possible recall by anchors per level, up to the asked number or to where more gains too little."""
    before = -1.0
    for per_level in range(1, (MOST_PER_LEVEL if wanted is None else wanted) + 1):
        _, (bpr, _) = _search(boxes, coarse, _Levels(strides, per_level, image_size), seed, *_QUICK)
        yield per_level, bpr
        if wanted is None and bpr - before < MIN_GAIN:
            return
        before = bpr


def _enough(curve: Sequence[tuple[int, float]]) -> int:
    """Return the smallest number whose successor gains less than MIN_GAIN, else the largest."""
    for (number, bpr), (_, more) in pairwise(curve):
        if more - bpr < MIN_GAIN:
            return number
    return curve[-1][0]


def _search(
    boxes: _Boxes, coarse: _Boxes, levels: _Levels, seed: int, generations: int, starts: int
) -> tuple[Floats, Score]:
    """Return the best anchors [k, 2] over several starts, and their score on every box."""
    logs = np.log(coarse.wh)

    def attempt(start: int) -> tuple[Floats, Score]:
        rng = np.random.default_rng([seed, levels.per_level, start])
        first = _spread(logs, levels.count) if start == 0 else _k_means(logs, coarse.weights, levels.count, rng)
        anchors = _evolve(logs, coarse.weights, _settle(np.exp(first), levels), levels, generations, rng)
        bpr, _, fitness = measure(anchors, boxes.wh, boxes.weights)
        return anchors, (bpr, fitness)

    return max((attempt(start) for start in range(starts)), key=lambda found: found[1])


def _spread(logs: Floats, count: int) -> Floats:
    """Return points [count, 2] far apart, each the one farthest from those before: within twice the best reach."""
    chosen = [(logs.min(axis=0) + logs.max(axis=0)) / 2]
    nearest = np.abs(logs - chosen[0]).max(axis=1)
    while len(chosen) < count:
        chosen.append(logs[int(nearest.argmax())])
        nearest = np.minimum(nearest, np.abs(logs - chosen[-1]).max(axis=1))
    return np.array(chosen)


def _k_means(logs: Floats, weights: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return weighted k-means centres [count, 2] of log sizes; the first ones drawn far apart (k-means++)."""
    centres = np.empty((count, 2))
    nearest = np.ones(len(logs))
    for index in range(count):
        mass = np.cumsum(weights * nearest)
        mass = np.cumsum(weights) if mass[-1] <= 0 else mass  # fewer distinct sizes than centres
        place = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
        centres[index] = logs[min(place, len(logs) - 1)]
        away = ((logs - centres[index]) ** 2).sum(axis=1)
        nearest = away if index == 0 else np.minimum(nearest, away)
    for _ in range(30):
        owner = ((logs[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)  # [N]
        total = np.bincount(owner, weights, minlength=count)
        moved = centres.copy()
        for axis in (0, 1):
            summed = np.bincount(owner, weights * logs[:, axis], minlength=count)
            moved[:, axis] = np.divide(summed, total, out=centres[:, axis].copy(), where=total > 0)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _evolve(
    logs: Floats, weights: Floats, anchors: Floats, levels: _Levels, generations: int, rng: np.random.Generator
) -> Floats:
    """Return anchors reached by random changes, of which only those are kept that make the score no worse."""
    best = _score(logs, weights, anchors)
    shape = (generations, levels.count, 2)
    strength = rng.choice([0.02, 0.1, 0.4], size=(generations, 1, 1))
    chosen = rng.random(shape) < rng.choice([1.5 / levels.count, 0.9], size=(generations, 1, 1))
    for change in np.exp(rng.normal(size=shape) * strength * chosen):
        candidate = _settle(anchors * change, levels)
        score = _score(logs, weights, candidate)
        if score >= best:
            anchors, best = candidate, score
    return anchors


def _score(logs: Floats, weights: Floats, anchors: Floats) -> Score:
    nearest = np.full(len(logs), np.inf)
    for w, h in np.log(anchors):
        np.minimum(nearest, np.maximum(np.abs(logs[:, 0] - w), np.abs(logs[:, 1] - h)), out=nearest)
    hit = weights * (nearest < np.log(RATIO) - 1e-9)  # strictly within reach, also after rounding
    return float(hit.sum()), float((hit * np.exp(-nearest)).sum())


def _settle(anchors: Floats, levels: _Levels) -> Floats:
    """Return the anchors by area, to 1/100 px, none above the image or below half its level's stride."""
    highest = np.maximum(levels.floors, levels.image_size)
    for _ in range(levels.count + 1):  # raising one may change the order by area, but only ever upwards
        anchors = anchors[np.lexsort((anchors[:, 0], anchors.prod(axis=1)))]
        raised: Floats = np.clip(anchors, levels.floors, highest).round(2)
        if np.array_equal(raised, anchors):
            break
        anchors = raised
    return np.clip(anchors, levels.floors, highest)


def _by_level(anchors: Floats, levels: _Levels) -> tuple[tuple[tuple[float, float], ...], ...]:
    rows = [(float(w), float(h)) for w, h in anchors]
    return tuple(tuple(rows[i : i + levels.per_level]) for i in range(0, len(rows), levels.per_level))


def _guess(levels: _Levels) -> AnchorFit:
    """Return square anchors of one to two and a half times each stride, for want of boxes."""
    steps = 2.5 ** (np.arange(levels.per_level) / max(levels.per_level, 1))
    sides = np.concatenate([stride * steps for stride in levels.strides])
    anchors = _settle(np.stack([sides, sides], axis=1), levels)
    return AnchorFit(_by_level(anchors, levels), levels.strides, levels.image_size, 0, None, None, None, ())
