"""Fit anchors to the sizes of boxes: best possible recall first, then fitness.

A box and an anchor agree by the smaller of their two side ratios, each taken as at most 1 (the metric of YOLOv5's
AutoAnchor). The anchor reaches the box when that is above 1 / RATIO. In logarithms, it is a Chebyshev distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from etl import assigner, boxes as bx
from etl.numbers import count_of
from etl.stages.anchors.search import Floats, Limits, Sizes, clamp_anchors, refine_anchors, search_anchors

VERSION = 2
RATIO = assigner.RATIO  # largest ratio of a box side to an anchor side
MOST_PER_LEVEL = 6
COCO = {  # stride: (w, h) at 640 px, the defaults of YOLOv5 (refitted from YOLOv3, Redmon and Farhadi 1804.02767)
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
MIN_GAIN = 0.001  # best possible recall that one more anchor per level must add

_OF_FIT = ("anchors", "per_level", "bpr", "aat", "fitness", "bpr_curve", "fitness_alone")  # beside preset anchors
_DISTINCT = 100_000  # up to this many boxes, equal ones are merged
_FINE, _COARSE = 4096, 512  # sizes in the search; the result is measured on all boxes
_PER_OCTAVE = 32  # sizes of the finest grid
_WEIGHT = 2.0**-20  # weights are rounded to multiples of it, so that sums do not depend on the order
_SIDES = (2.0**-8, 2.0**20)  # px: range of the grid
_ROUNDING = 0.0015  # of the logarithm of an anchor's side: it is rounded to 1/100 px
_CHUNK = 2**15  # boxes measured at once


@dataclass(frozen=True)
class AnchorFit:
    """Anchors per level, smallest first, in network pixels, with their metrics; defaults if there were no boxes."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]  # [levels][per level](w, h)
    strides: tuple[int, ...]
    image_size: int
    boxes: int  # sum of the weights; 0 means that nothing was fitted
    bpr: float | None  # best possible recall: share of boxes that an anchor reaches; None without boxes
    aat: float | None  # anchors above threshold: mean number of anchors that reach a box
    fitness: float | None  # mean best agreement of a box, 0 if no anchor reaches it
    bpr_curve: tuple[tuple[int, float], ...]  # (anchors per level, bpr), if `auto`
    fitness_alone: tuple[float, float] | None  # bpr and fitness when optimised for fitness alone
    by_size: tuple[tuple[str, int, float | None, float], ...]  # bucket, boxes, bpr of COCO's anchors, bpr of these
    in_place_of: AnchorFit | None = None  # the fit, if these anchors were preset
    seconds: float = field(default=0.0, compare=False)

    @property
    def fitted(self) -> bool:
        """Whether the anchors were fitted to boxes."""
        return self.boxes > 0 and self.in_place_of is None


@dataclass(frozen=True)
class _Levels:
    strides: tuple[int, ...]
    per_level: int
    image_size: int

    @property
    def floors(self) -> Floats:
        """The smallest side of each anchor [k]: half its level's stride, at most the image size."""
        sides = np.repeat(np.array(self.strides, dtype=np.float64) / 2, self.per_level)
        return np.minimum(sides, self.image_size)

    @property
    def limits(self) -> Limits:
        return Limits(np.log(self.floors), float(np.log(self.image_size)))


class _Boxes(NamedTuple):
    wh: Floats  # [N, 2]
    weights: Floats  # [N], sums to the number of boxes


def fit_anchors(
    wh: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    image_size: int,
    strides: Sequence[int],
    per_level: int | Literal["auto"] = "auto",
    seed: int = 0,
) -> AnchorFit:
    """Return the anchors for boxes of sizes wh [N, 2] in network pixels; the order of the boxes has no influence.

    Boxes without area are ignored. `auto` takes the fewest anchors per level to which one more would add less than
    0.1 % of best possible recall. ValueError for strides that are not positive.
    """
    started = perf_counter()
    steps = tuple(sorted(int(stride) for stride in strides))
    if not steps or steps[0] <= 0:
        raise ValueError("strides must be positive and at least one")
    boxes = _valid_boxes(wh, weights)
    if not len(boxes.wh):
        return _default_fit(_Levels(steps, 3 if per_level == "auto" else per_level, image_size))
    fine, coarse = _grid(boxes, _FINE), _grid(boxes, _COARSE, certain=0.5)
    curve = tuple(_curve(fine, coarse, steps, image_size, seed)) if per_level == "auto" else ()
    levels = _Levels(steps, _fewest_per_level(curve) if per_level == "auto" else per_level, image_size)
    rng = np.random.default_rng([seed, levels.per_level])
    best = search_anchors(coarse, fine, levels.limits, rng)
    alone = refine_anchors(coarse, levels.limits, best, rng, recall=0.0)
    anchors = _rounded(best, levels)
    bpr, aat, fitness = measure_anchors(anchors, boxes.wh, boxes.weights)
    lone_bpr, _, lone_fitness = measure_anchors(_rounded(alone, levels), np.exp(fine.logs), fine.weights)
    return AnchorFit(
        anchors=_by_level(anchors, levels),
        strides=steps,
        image_size=image_size,
        boxes=round(_sum(boxes.weights)),
        bpr=bpr,
        aat=aat,
        fitness=fitness,
        bpr_curve=curve,
        fitness_alone=(lone_bpr, lone_fitness),
        by_size=tuple(_by_size(anchors, boxes, levels)),
        seconds=perf_counter() - started,
    )


def use_preset(
    fitted: AnchorFit,
    preset: Sequence[Sequence[tuple[float, float]]],
    wh: ArrayLike,
    weights: ArrayLike | None = None,
) -> AnchorFit:
    """Return preset anchors in place of those fitted to these boxes, measured on the same boxes."""
    anchors, boxes = np.array([pair for level in preset for pair in level], dtype=np.float64), _valid_boxes(wh, weights)
    levels = _Levels(fitted.strides, len(preset[0]), fitted.image_size)
    measured = measure_anchors(anchors, boxes.wh, boxes.weights) if len(boxes.wh) else (None, None, None)
    bpr, aat, fitness = measured
    return replace(
        fitted,
        anchors=_by_level(anchors, levels),
        bpr=bpr,
        aat=aat,
        fitness=fitness,
        bpr_curve=(),
        fitness_alone=None,
        by_size=tuple(_by_size(anchors, boxes, levels)),
        in_place_of=fitted,
    )


def measure_anchors(anchors: ArrayLike, wh: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float, float]:
    """Return bpr, aat and fitness (see `AnchorFit`) of anchors [k, 2] on boxes [N > 0, 2]."""
    sides = np.asarray(wh, dtype=np.float64).reshape(-1, 2)
    pairs = np.asarray(anchors, dtype=np.float64).reshape(-1, 2)
    best, reached = np.empty(len(sides)), np.empty(len(sides))
    for start in range(0, len(sides), _CHUNK):
        part = slice(start, start + _CHUNK)
        best[part], reached[part] = _agreement(pairs, *np.ascontiguousarray(sides[part].T))
    weight = np.ones(len(sides)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = _sum(weight)
    bpr = _sum(weight * (best > 1 / RATIO)) / total
    aat = _sum(weight * reached) / total
    best *= best > 1 / RATIO
    fitness = _sum(weight * best) / total
    return min(bpr, 1.0), aat, min(fitness, 1.0)


def _agreement(anchors: Floats, w: Floats, h: Floats) -> tuple[Floats, Floats]:
    """Return each box's best agreement with an anchor [N], and the number of anchors that reach it [N]."""
    best, reached = np.zeros(len(w)), np.zeros(len(w))
    for a, b in anchors:
        across, down = w / a, h / b
        agreement = np.minimum(np.minimum(across, 1 / across), np.minimum(down, 1 / down))
        reached += agreement > 1 / RATIO
        np.maximum(best, agreement, out=best)
    return best, reached


def _sum(values: NDArray[Any]) -> float:
    """Return a sum that does not depend on the order of the values."""
    return float(np.sort(values).sum(dtype=np.float64))


def to_json(fitted: AnchorFit) -> dict[str, Any]:
    """Return the content of anchors.json; without the seconds it took, so that equal boxes give equal bytes.

    Preset anchors also have the key `fitted_anchors`, the fit in their place, and their recall by size as `preset`.
    """
    usual = fitted.in_place_of
    by_size = [dict(zip(("size", "boxes", "coco", "fitted"), row, strict=True)) for row in (usual or fitted).by_size]
    content = {
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
        "by_size": by_size,
        "fitness_alone": None if fitted.fitness_alone is None else list(fitted.fitness_alone),
    }
    if usual is None:
        return content
    for row, (_, _, _, recall) in zip(by_size, fitted.by_size, strict=True):
        row["preset"] = recall
    of_fit = to_json(usual)
    return content | {"fitted_anchors": {key: of_fit[key] for key in _OF_FIT}}


def _valid_boxes(wh: ArrayLike, weights: ArrayLike | None) -> _Boxes:
    """Return the boxes with a finite, positive size and weight; equal ones are merged up to _DISTINCT boxes."""
    sides = np.asarray(wh, dtype=np.float64).reshape(-1, 2)
    weight = np.ones(len(sides)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
    if len(weight) != len(sides):
        raise ValueError(f"{count_of(len(sides), 'box')} but {count_of(len(weight), 'weight')}")
    good = np.isfinite(sides).all(axis=1) & (sides > 0).all(axis=1) & (weight > 0)
    if not good.all():
        sides, weight = sides[good], weight[good]
    if weights is not None:
        weight = np.rint(weight / _WEIGHT) * _WEIGHT
    if len(sides) > _DISTINCT:
        return _Boxes(sides, weight)
    distinct, which = np.unique(sides, axis=0, return_inverse=True)
    return _Boxes(distinct, _counts(which.ravel(), weight))


def _grid(boxes: _Boxes, most: int, certain: float = 1.0) -> Sizes:
    """Return about `most` representative sizes: those of the boxes, or of the finest grid with at most that many cells.

    A size counts as reached if the share `certain` of its cell's half-width is reached.
    """
    per_octave, cell = _PER_OCTAVE, 0.0
    while len(boxes.wh) > most and per_octave >= 4:
        boxes, cell = _cells(boxes, per_octave), float(np.log(2)) / per_octave
        per_octave //= 2
    reach = float(np.log(RATIO)) - (cell / 2 + _ROUNDING) * certain
    return Sizes(np.log(boxes.wh), boxes.weights / boxes.weights.sum(), reach)


def _cells(boxes: _Boxes, per_octave: int) -> _Boxes:
    """Return the centres of the non-empty cells of a logarithmic grid, with the weights of the boxes in them."""
    places = np.floor(np.log2(np.clip(boxes.wh, *_SIDES)) * per_octave).astype(np.int64)
    low = places.min(axis=0)
    places -= low
    span = int(places[:, 1].max()) + 1
    weights = _counts(places[:, 0] * span + places[:, 1], boxes.weights)
    filled = np.flatnonzero(weights)
    middles = np.stack(np.divmod(filled, span), axis=1) + low + 0.5  # so that a coarser cell contains whole finer ones
    return _Boxes(np.exp2(middles / per_octave), weights[filled])


def _counts(places: NDArray[np.int64], weights: Floats) -> Floats:
    return np.bincount(places, weights).astype(np.float64)


def _rounded(logs: Floats, levels: _Levels) -> Floats:
    """Return the anchors rounded to 1/100 px, within their limits."""
    return np.clip(np.exp(logs).round(2), levels.floors[:, None], levels.image_size)


def _curve(
    fine: Sizes, coarse: Sizes, strides: tuple[int, ...], image_size: int, seed: int
) -> Iterator[tuple[int, float]]:
    """Yield (anchors per level, bpr) until one more anchor adds less than MIN_GAIN."""
    before = -1.0
    for per_level in range(1, MOST_PER_LEVEL + 1):
        levels = _Levels(strides, per_level, image_size)
        best = search_anchors(coarse, fine, levels.limits, np.random.default_rng([seed, per_level]))
        bpr, _, _ = measure_anchors(_rounded(best, levels), np.exp(fine.logs), fine.weights)
        yield per_level, bpr
        if bpr - before < MIN_GAIN:
            return
        before = bpr


def _fewest_per_level(curve: Sequence[tuple[int, float]]) -> int:
    """Return the smallest number whose successor adds less than MIN_GAIN, else the largest."""
    for (number, bpr), (_, more) in pairwise(curve):
        if more - bpr < MIN_GAIN:
            return number
    return curve[-1][0]


def _by_size(anchors: Floats, boxes: _Boxes, levels: _Levels) -> Iterator[tuple[str, int, float | None, float]]:
    """Yield bucket, boxes, bpr of COCO's anchors and bpr of these, for buckets that have boxes."""
    usual = np.array([pair for stride in levels.strides for pair in COCO.get(stride, ())]) * (levels.image_size / 640)
    bucket = bx.bucket(np.sqrt(boxes.wh.prod(axis=1)))
    for index, name in enumerate(bx.BUCKETS):
        wh, weights = boxes.wh[bucket == index], boxes.weights[bucket == index]
        if len(wh):
            before = measure_anchors(usual, wh, weights)[0] if len(usual) else None
            yield name, round(_sum(weights)), before, measure_anchors(anchors, wh, weights)[0]


def _by_level(anchors: Floats, levels: _Levels) -> tuple[tuple[tuple[float, float], ...], ...]:
    rows = [(float(w), float(h)) for w, h in anchors]
    return tuple(tuple(rows[i : i + levels.per_level]) for i in range(0, len(rows), levels.per_level))


def _default_fit(levels: _Levels) -> AnchorFit:
    """Return square anchors of 1 to 2.5 times each stride, as defaults without boxes."""
    steps = 2.5 ** (np.arange(levels.per_level) / max(levels.per_level, 1))
    sides = np.concatenate([stride * steps for stride in levels.strides])
    anchors = _rounded(clamp_anchors(np.log(np.stack([sides, sides], axis=1))[None], levels.limits)[0], levels)
    return AnchorFit(_by_level(anchors, levels), levels.strides, levels.image_size, 0, None, None, None, (), None, ())
