"""The gate between a new model and the champion: no promotion without correct detections or with a regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.boxes import BUCKETS
from etl.config import Gate
from etl.evaluation import Gain
from train.evaluation import bootstrap
from train.evaluation.matching import MatchedDetections
from train.evaluation.sized_boxes import size_range_of

BUCKET_METRICS = {name: f"AP_{name}" for name in BUCKETS}


class Decision(NamedTuple):
    """The outcome of a comparison with the champion."""

    passed: bool
    reasons: tuple[str, ...]  # against a promotion
    warnings: tuple[str, ...]
    gains: dict[str, Gain]  # by metric


def disqualify(model: MatchedDetections, metric: str) -> list[str]:
    """Return why the gate never promotes this model: the metric or AP is 0 or cannot be measured; empty if it may."""
    every_image_once = np.ones((1, model.images), dtype=np.int64)
    for name in (metric, "AP"):
        (value,) = bootstrap.average_precision(model, name, every_image_once)
        if np.isnan(value):
            return [_unmeasured(name)]
        if value == 0:
            return [f"{name} is 0: no correct detection in val"]
    return []


def decide(challenger: MatchedDetections, champion: MatchedDetections, gate: Gate, *, seed: int = 0) -> Decision:
    """Return whether a challenger passes, with the gain of each metric, of two models on the same images.

    A paired bootstrap: both models are measured on the same 1,000 resamples of the images. The median gain of the
    gate's metric must not be below 0, and no size bucket of `min_boxes` objects or more may lose more than
    `max_regression` (median) with the upper bound of the 95 % interval below 0. Smaller buckets only warn.
    """
    weights = bootstrap.resample(challenger.images, seed=seed)
    gains = {
        metric: _gain(challenger, champion, metric, weights)
        for metric in dict.fromkeys((gate.metric, *BUCKET_METRICS.values()))
    }
    reasons: list[str] = []
    warnings: list[str] = []
    median = gains[gate.metric].median
    if median is None:
        reasons.append(_unmeasured(gate.metric))
    elif median < 0:
        reasons.append(f"{gate.metric} falls by {-median:.4f} (median of {len(weights)} resamples)")
    for bucket, metric in BUCKET_METRICS.items():
        loss = _significant_loss(gains[metric])
        if loss is not None and loss > gate.max_regression:
            objects = challenger.objects(size_range_of(bucket))
            text = f"{metric} falls by {loss:.4f} ({objects} objects)"
            (reasons if objects >= gate.min_boxes else warnings).append(text)
    return Decision(not reasons, tuple(reasons), tuple(warnings), gains)


def _gain(challenger: MatchedDetections, champion: MatchedDetections, metric: str, weights: NDArray[np.int64]) -> Gain:
    """Return the difference challenger - champion on the resamples; None where one of them cannot be measured."""
    difference = bootstrap.average_precision(challenger, metric, weights) - bootstrap.average_precision(
        champion, metric, weights
    )
    measured = difference[~np.isnan(difference)]
    median = round(float(np.median(measured)), 6) if len(measured) else None
    return Gain(median=median, interval=bootstrap.percentile_interval(difference))


def _significant_loss(gain: Gain) -> float | None:
    """Return by how much a metric falls (median); None where the 95 % interval does not lie below 0."""
    if gain.median is None or gain.interval is None or gain.interval[1] >= 0:
        return None
    return -gain.median


def _unmeasured(metric: str) -> str:
    return f"{metric} cannot be measured: no such object in val"
