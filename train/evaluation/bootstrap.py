"""Bootstrap resamples of average precision (Efron 1979): intervals of one model, and paired comparison of two.

A resample draws as many images as there are, with replacement. Images are matched once; a resample only weights the
matches of each image by how often the image was drawn, which gives exactly the average precision of the drawn images
(detections of equal score in copies of one image come in one of their orders). Two models are compared in pairs: both
are measured on the same resamples, so that the difficulty of the drawn images cancels out of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.evaluation import Interval
from train.detections import Detections, GroundTruth
from train.evaluation import coco
from train.evaluation.coco import Floats

RESAMPLES = 1000
METRICS = ("AP", "AP50", "AP75", *(f"AP_{name}" for name in boxes.BUCKETS))
_PERCENTILES = (2.5, 97.5)  # the bounds of a 95 % interval
_THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # of IoU, .5 to .95
_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 4_000_000  # values of one matrix of resamples by detections


@dataclass(frozen=True, eq=False)
class RangeMatches:
    """The matched detections of one category and size range, best score first."""

    image: NDArray[np.int64]  # [D]
    hit: NDArray[np.bool_]  # [threshold, D]
    neutral: NDArray[np.bool_]  # [threshold, D], neither right nor wrong
    objects: NDArray[np.int64]  # [images], that count for recall


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """A model's detections on some images, matched with the objects of every size range."""

    images: int
    ranges: Mapping[str, Sequence[RangeMatches]]  # all, COCO's small medium large, buckets as `bucket/name`

    def objects(self, size: str) -> int:
        """Return how many objects of a size range count for recall."""
        return int(sum(category.objects.sum() for category in self.ranges[size]))


def match_images(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    categories: int,
    *,
    scale: Sequence[float] | None = None,
) -> MatchedDetections:
    """Return the matches of each image, one entry of both sequences per image; `scale` as in average_precision."""
    scales = [1.0] * len(truth) if scale is None else list(scale)
    rows = list(zip(truth, detections, scales, strict=True))
    most = max([coco.COCO_MAX_DETECTIONS, *map(len, truth), *map(len, detections)])
    ranges: dict[str, Sequence[RangeMatches]] = {}
    for sized, size_ranges, name in (
        (coco.by_area(rows), coco.COCO_SIZES, "{}"),
        (coco.by_bucket(rows), coco.BUCKET_SIZES, "bucket/{}"),
    ):
        cells = coco.read_matches(coco.run_evaluator(list(sized), categories, size_ranges, [most], False))
        for number, size in enumerate(size_ranges):
            ranges[name.format(size)] = [
                _range_matches(cells, category, number, len(rows)) for category in range(categories)
            ]
    return MatchedDetections(len(rows), ranges)


def resample(images: int, number: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Return how often each resample draws each image [number, images]; the same for the same seed."""
    rng = np.random.default_rng([seed, images])
    weights: NDArray[np.int64] = rng.multinomial(images, np.full(images, 1 / images), size=number).astype(np.int64)
    return weights


def average_precision(matched: MatchedDetections, metric: str, weights: NDArray[np.int64]) -> Floats:
    """Return a metric (AP, AP50, AP75, or one of these and `_size`) of each resample [R]; NaN without ground truth.

    KeyError for a metric that is none of these.
    """
    kind, _, size = metric.partition("_")
    if kind not in _THRESHOLDS or (key := size_range_of(size)) not in matched.ranges:
        raise KeyError(metric)
    rows = [_average_precision(category, _THRESHOLDS[kind], weights) for category in matched.ranges[key]]
    by_category = np.array(rows).reshape(len(rows), len(weights))
    measured = ~np.isnan(by_category)
    sums, number = np.where(measured, by_category, 0).sum(axis=0), measured.sum(axis=0)
    means: Floats = np.divide(sums, number, out=np.full(len(weights), np.nan), where=number > 0)
    return means


def confidence_intervals(matched: MatchedDetections, seed: int = 0) -> dict[str, Interval | None]:
    """Return the 95 % interval of each metric; None where there is no ground truth."""
    weights = resample(matched.images, seed=seed)
    return {metric: percentile_interval(average_precision(matched, metric, weights)) for metric in METRICS}


def percentile_interval(values: Floats) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are not NaN; None without any."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, _PERCENTILES)
    return round(float(low), 6), round(float(high), 6)


def size_range_of(size: str) -> str:
    """Return the key of `MatchedDetections.ranges` for the size in a metric's name."""
    if not size:
        return "all"
    return f"bucket/{size}" if size in boxes.BUCKETS[:2] else size


def _range_matches(
    cells: Mapping[tuple[int, int, int], coco.CellMatches], category: int, size: int, images: int
) -> RangeMatches:
    """Return the matches of all images in one category and size range, in COCO's order."""
    own = [(image, cell) for image in range(images) if (cell := cells.get((category, size, image))) is not None]
    objects = np.zeros(images, dtype=np.int64)
    for image, cell in own:
        objects[image] = cell.objects
    owner = np.repeat([image for image, _ in own], [len(cell.score) for _, cell in own]).astype(np.int64)
    score = np.concatenate([np.zeros(0), *(cell.score for _, cell in own)])
    none = np.zeros((coco.IOU_THRESHOLDS, 0), dtype=np.bool_)
    hit = np.concatenate([none, *(cell.hit for _, cell in own)], axis=1)
    neutral = np.concatenate([none, *(cell.neutral for _, cell in own)], axis=1)
    order = np.argsort(-score, kind="stable")
    return RangeMatches(owner[order], hit[:, order], neutral[:, order], objects)


def _average_precision(matches: RangeMatches, thresholds: slice, weights: NDArray[np.int64]) -> Floats:
    """Return AP of each resample [R], the mean over the thresholds; NaN without ground truth."""
    hits, counted = matches.hit[thresholds], ~matches.neutral[thresholds]
    used = counted.any(axis=0)
    image, hits, counted = matches.image[used], hits[:, used], counted[:, used]
    objects = weights @ matches.objects
    values = np.zeros(len(weights))
    step = max(_CHUNK // max(len(image), 1), 1)
    for first in range(0, len(weights), step):
        part = slice(first, first + step)
        times = weights[part][:, image]
        for hit, counts in zip(hits, counted, strict=True):
            values[part] += _mean_precision(times, hit, counts, objects[part])
    return np.where(objects > 0, values / len(hits), np.nan)


def _mean_precision(
    times: NDArray[np.int64], hit: NDArray[np.bool_], counted: NDArray[np.bool_], objects: NDArray[np.int64]
) -> Floats:
    """Return the mean interpolated precision of detections that count so many times [R, D], best score first.

    `objects` [R] count for recall. Precision is highest, and recall rises, at a hit: only hits are looked at.
    """
    places = np.flatnonzero(hit)
    if not len(places):
        return np.zeros(len(times))
    hits = np.cumsum(times[:, places], axis=1)
    detections = np.cumsum(times if counted.all() else times * counted, axis=1)[:, places]
    precision = np.divide(hits, detections, out=np.zeros(hits.shape), where=detections > 0)
    interpolated = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    at = _first_places(hits, objects)
    precision_at = np.take_along_axis(interpolated, np.minimum(at, len(places) - 1), axis=1)
    means: Floats = np.where(at < len(places), precision_at, 0).sum(axis=1) / len(_RECALLS)
    return means


def _first_places(hits: NDArray[np.int64], objects: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where rising hits [R, D] of so many objects [R] first reach each recall [R, 101]; D where they do not."""
    of = np.maximum(objects, 1)[:, None]
    needed = np.ceil(_RECALLS * of).astype(np.int64)
    needed -= (needed > 0) & ((needed - 1) / of >= _RECALLS)  # as COCO compares: recalls, rounded, not counts
    needed += needed / of < _RECALLS
    apart = np.arange(len(hits))[:, None] * (int(max(hits.max(initial=0), needed.max(initial=0))) + 1)
    flat = np.searchsorted((hits + apart).ravel(), (needed + apart).ravel(), side="left")
    places: NDArray[np.int64] = flat.reshape(needed.shape) - np.arange(len(hits))[:, None] * hits.shape[1]
    return places
