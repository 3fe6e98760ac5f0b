"""Bootstrap resamples of average precision (Efron 1979): intervals of one model, and paired comparison of two.

A resample draws as many images as there are, with replacement. Images are matched once; a resample only weights the
matches of each image by how often the image was drawn, which gives exactly the average precision of the drawn images
(detections of equal score in copies of one image come in one of their orders). Two models are compared in pairs: both
are measured on the same resamples, so that the difficulty of the drawn images cancels out of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl import boxes
from etl.evaluation import Estimate, Gain, Interval
from train.detections import Index
from train.metrics import coco, precision
from train.metrics.matching import MatchedDetections
from train.metrics.sized_boxes import BUCKET_RANGES, Floats, size_range_of

RESAMPLES = 1000
METRICS = ("AP", "AP50", "AP75", *(f"AP_{name}" for name in boxes.BUCKETS))
_PERCENTILES = (2.5, 97.5)  # the bounds of a 95 % interval


def resample(images: int, number: int = RESAMPLES, seed: int = 0) -> Index:
    """Return how often each resample draws each image [number, images]; the same for the same seed."""
    rng = np.random.default_rng([seed, images])
    weights = rng.multinomial(images, np.full(images, 1 / images), size=number).astype(np.int64)
    return np.asfortranarray(weights)  # the resamples of one image side by side in memory


def average_precision(matched: MatchedDetections, metric: str, weights: Index) -> Floats:
    """Return a metric (AP, AP50, AP75, or one of these and `_size`) of each resample [R]; NaN without ground truth.

    KeyError for a metric that is none of these.
    """
    kind, _, size = metric.partition("_")
    if kind not in coco.AP_THRESHOLDS or (key := size_range_of(size)) not in matched.ranges:
        raise KeyError(metric)
    rows = coco.AP_THRESHOLDS[kind]
    return _mean([precision.average_precision(category, weights, rows) for category in matched.ranges[key]], weights)


def confidence_intervals(matched: MatchedDetections, seed: int = 0) -> dict[str, Interval | None]:
    """Return the 95 % interval of each metric; None where there is no ground truth."""
    weights = resample(matched.images, seed=seed)
    every = [precision.average_precision(category, weights) for category in matched.ranges["all"]]
    values = {
        kind: _mean([category[:, rows] for category in every], weights) for kind, rows in coco.AP_THRESHOLDS.items()
    }
    values |= {f"AP_{name}": average_precision(matched, f"AP_{name}", weights) for name in boxes.BUCKETS}
    return {metric: percentile_interval(values[metric]) for metric in METRICS}


def bucket_intervals(matched: MatchedDetections, seed: int = 0) -> dict[str, Interval | None]:
    """Return the 95 % interval of AP in each size bucket; None where there is no ground truth."""
    weights = resample(matched.images, seed=seed)
    return {
        bucket: percentile_interval(
            _mean([precision.average_precision(category, weights) for category in matched.ranges[size]], weights)
        )
        for bucket, size in zip(boxes.BUCKETS, BUCKET_RANGES, strict=True)
    }


def paired_gain(model: MatchedDetections, other: MatchedDetections, metric: str, weights: Index) -> Gain:
    """Return the difference model - other of a metric on the resamples; None where one of them cannot be measured."""
    values = [average_precision(matched, metric, weights) for matched in (model, other)]
    difference = values[0] - values[1]
    measured, objects = difference[~np.isnan(difference)], model.objects(size_range_of(metric.partition("_")[2]))
    if not len(measured):
        return Gain(median=None, interval=None, objects=objects)
    few = np.sqrt(model.images / max(model.images - 1, 1))  # resamples vary less than new images
    of_model, of_other = (
        _estimate(matched, metric, resampled) for matched, resampled in zip((model, other), values, strict=True)
    )
    return Gain(
        median=round(float(np.median(measured)), 6),
        interval=percentile_interval(difference),
        deviation=round(float(measured.std() * few), 6),
        objects=objects,
        model=of_model,
        other=of_other,
    )


def _estimate(matched: MatchedDetections, metric: str, resampled: Floats) -> Estimate | None:
    """Return a metric on the images as they are, with the interval of its values on the resamples."""
    every_image_once = np.ones((1, matched.images), dtype=np.int64)
    value, interval = average_precision(matched, metric, every_image_once)[0], percentile_interval(resampled)
    return None if interval is None or np.isnan(value) else Estimate(value=round(float(value), 6), interval=interval)


def _mean(categories: Sequence[Floats], weights: Index) -> Floats:
    """Return the mean of AP [R, threshold] over thresholds and categories with ground truth [R]; NaN without any."""
    values = np.array([category.mean(axis=1) for category in categories]).reshape(len(categories), len(weights))
    measured = ~np.isnan(values)
    sums, number = np.where(measured, values, 0).sum(axis=0), measured.sum(axis=0)
    means: Floats = np.divide(sums, number, out=np.full(len(weights), np.nan), where=number > 0)
    return means


def percentile_interval(values: Floats) -> Interval | None:
    """Return the 2.5th and the 97.5th percentile of the values that are not NaN; None without any."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, _PERCENTILES)
    return round(float(low), 6), round(float(high), 6)
