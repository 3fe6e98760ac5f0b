"""How sure a figure is: average precision over images drawn with replacement (Efron 1979), as often as one likes.

Images are matched once; a draw only weighs what was found in each image by how often the image was drawn, which gives
exactly the average precision of the images drawn (of equal scores in copies of one image, in one of their orders).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from train.detections import Detections, GroundTruth
from train.evaluation import coco
from train.evaluation.coco import Floats

RESAMPLES = 1000
METRICS = ("AP", "AP50", "AP75", *(f"AP_{name}" for name in ("very_tiny", "tiny", "small", "medium", "large")))
_SURE = (2.5, 97.5)  # per cent: what lies between holds 95 % of the draws
_THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # of IoU, .5 to .95
_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 4_000_000  # values of one matrix of draws by detections


@dataclass(frozen=True, eq=False)
class RangeMatches:
    """What was found of one category and range of sizes, best score first."""

    image: NDArray[np.int64]  # [D]
    hit: NDArray[np.bool_]  # [IoU threshold, D]
    neutral: NDArray[np.bool_]  # [IoU threshold, D], neither right nor wrong
    truths: NDArray[np.int64]  # [images], objects that must be found


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """A model's detections on some images, matched with the truth in every range of sizes."""

    images: int
    found: Mapping[
        str, Sequence[RangeMatches]
    ]  # by size: all, COCO's small medium large, and each bucket as `bucket/name`

    def truths(self, size: str) -> int:
        """Return how many objects of a size must be found."""
        return int(sum(row.truths.sum() for row in self.found[size]))


def match_images(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    categories: int,
    *,
    scale: Sequence[float] | None = None,
) -> MatchedDetections:
    """Return what was found in each image, one entry of both sequences per image; `scale` as in average_precision."""
    scales = [1.0] * len(truth) if scale is None else list(scale)
    rows = list(zip(truth, detections, scales, strict=True))
    most = max([coco.COCO_MAX_DETECTIONS, *map(len, truth), *map(len, detections)])
    found: dict[str, Sequence[RangeMatches]] = {}
    for sized, sizes, name in (
        (coco.by_area(rows), coco.COCO_SIZES, "{}"),
        (coco.by_bucket(rows), coco.BUCKET_SIZES, "bucket/{}"),
    ):
        run = coco.run_evaluator(sized, len(rows), categories, sizes, [most], False)
        cells = coco.read_matches(run)
        for number, size in enumerate(sizes):
            found[name.format(size)] = [_of(cells, category, number, len(rows)) for category in range(categories)]
    return MatchedDetections(len(rows), found)


def resample(images: int, number: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Return how often each image was drawn in each draw [number, images]."""
    rng = np.random.default_rng([seed, images])
    weights: NDArray[np.int64] = rng.multinomial(images, np.full(images, 1 / images), size=number).astype(np.int64)
    return weights


def average_precision(models: MatchedDetections, figure: str, weights: NDArray[np.int64]) -> Floats:
    """Return a figure (AP, AP50, AP75, or one of these and `_size`) of each draw [R]; NaN without truth in it."""
    kind, _, size = figure.partition("_")
    if kind not in _THRESHOLDS or (key := size_range_of(size)) not in models.found:
        raise KeyError(figure)
    rows = [_precision(found, _THRESHOLDS[kind], weights) for found in models.found[key]]
    stacked = np.array(rows).reshape(len(rows), len(weights))
    there = ~np.isnan(stacked)
    sums = np.where(there, stacked, 0).sum(axis=0)
    means: Floats = np.divide(sums, there.sum(axis=0), out=np.full(len(weights), np.nan), where=there.any(axis=0))
    return means


def confidence_intervals(models: MatchedDetections, seed: int = 0) -> dict[str, Any]:
    """Return, of each figure, between which values 95 % of the draws lie; None where there is no truth."""
    weights = resample(models.images, seed=seed)
    return {figure: percentile_interval(average_precision(models, figure, weights)) for figure in METRICS}


def percentile_interval(values: Floats) -> list[float] | None:
    """Return the 2.5th and the 97.5th percentile of draws; None of none."""
    values = values[~np.isnan(values)]
    return [round(float(value), 6) for value in np.percentile(values, _SURE)] if len(values) else None


def size_range_of(size: str) -> str:
    """Return under which name of `Matched.found` the objects of a figure's size are."""
    if not size:
        return "all"
    return f"bucket/{size}" if size in boxes.BUCKETS[:2] else size


def _of(cells: Mapping[tuple[int, int, int], coco.CellMatches], category: int, size: int, images: int) -> RangeMatches:
    mine = [(image, cells[category, size, image]) for image in range(images) if (category, size, image) in cells]
    truths = np.zeros(images, dtype=np.int64)
    for image, match in mine:
        truths[image] = match.truths
    score = np.concatenate([np.zeros(0), *(match.score for _, match in mine)])
    owner = np.repeat([image for image, _ in mine], [len(match.score) for _, match in mine]).astype(np.int64)
    none = np.zeros((coco.THRESHOLDS, 0), dtype=np.bool_)
    hit, neutral = (
        np.concatenate([none, *(getattr(match, name) for _, match in mine)], axis=1) for name in ("hit", "neutral")
    )
    order = np.argsort(-score, kind="stable")
    return RangeMatches(owner[order], hit[:, order], neutral[:, order], truths)


def _precision(found: RangeMatches, thresholds: slice, weights: NDArray[np.int64]) -> Floats:
    """Return the mean over IoU thresholds of the precision at 101 recalls, of each draw [R]; NaN without truth."""
    hits, judged = found.hit[thresholds], ~found.neutral[thresholds]
    some = judged.any(axis=0)
    image, hits, judged = found.image[some], hits[:, some], judged[:, some]
    total = weights @ found.truths
    values = np.zeros(len(weights))
    step = max(_CHUNK // max(len(image), 1), 1)
    for first in range(0, len(weights), step):
        part = slice(first, first + step)
        counted = weights[part][:, image]
        for right, counts in zip(hits, judged, strict=True):
            values[part] += _mean_precision(counted, right, counts, total[part])
    return np.where(total > 0, values / len(hits), np.nan)


def _mean_precision(
    counted: NDArray[np.int64], right: NDArray[np.bool_], judged: NDArray[np.bool_], total: NDArray[np.int64]
) -> Floats:
    """Return COCO's mean precision of detections counted so often [R, D], best score first, of so many objects [R].

    Precision is highest, and recall rises, where a detection is right: only there it is looked at.
    """
    places = np.flatnonzero(right)
    if not len(places):
        return np.zeros(len(counted))
    hits = np.cumsum(counted[:, places], axis=1)
    seen = np.cumsum(counted if judged.all() else counted * judged, axis=1)[:, places]
    precision = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    at = _first_places(hits, total)
    there = at < len(places)
    reached = np.take_along_axis(best, np.minimum(at, len(places) - 1), axis=1)
    means: Floats = np.where(there, reached, 0).sum(axis=1) / len(_RECALLS)
    return means


def _first_places(hits: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where rising hits [R, D] of so many objects [R] first reach each recall [R, 101]; D where they do not."""
    of = np.maximum(total, 1)[:, None]
    needed = np.ceil(_RECALLS * of).astype(np.int64)
    needed -= (needed > 0) & ((needed - 1) / of >= _RECALLS)  # as COCO compares: recalls, rounded, not counts
    needed += needed / of < _RECALLS
    apart = np.arange(len(hits))[:, None] * (int(max(hits.max(initial=0), needed.max(initial=0))) + 1)
    flat = np.searchsorted((hits + apart).ravel(), (needed + apart).ravel(), side="left")
    places: NDArray[np.int64] = flat.reshape(needed.shape) - np.arange(len(hits))[:, None] * hits.shape[1]
    return places
