"""Whether a new model may become the champion: it detects something, gains where it counts, and is worse nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from etl.boxes import BUCKETS
from etl.config import Gate
from train.evaluation import bootstrap
from train.evaluation.bootstrap import MatchedDetections

BUCKET_METRICS = {name: f"AP_{name}" for name in BUCKETS}  # of each bucket


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


def decide(challenger: MatchedDetections, champion: MatchedDetections, gate: Gate, *, seed: int = 0) -> dict[str, Any]:
    """Return passed, the reasons in words, and what each figure gained, of two models on the same images.

    The same images are drawn for both, 1,000 times: the metric's median gain must not be below 0, and no bucket of
    `min_boxes` objects or more may lose more than `max_regression` (median) with the upper 95 % bound below 0.
    Smaller buckets only warn.
    """
    weights = bootstrap.resample(challenger.images, seed=seed)

    def gain(figure: str) -> dict[str, Any]:
        values = [bootstrap.average_precision(model, figure, weights) for model in (challenger, champion)]
        difference = values[0] - values[1]
        there = difference[~np.isnan(difference)]
        return {
            "median": round(float(np.median(there)), 6) if len(there) else None,
            "interval": bootstrap.percentile_interval(difference),
        }

    gains = {gate.metric: gain(gate.metric)}
    reasons: list[str] = []
    warnings: list[str] = []
    middle = gains[gate.metric]["median"]
    if middle is None:
        reasons.append(_unmeasured(gate.metric))
    elif middle < 0:
        reasons.append(f"{gate.metric} falls by {-middle:.4f} (median of {len(weights)} draws)")
    for bucket, figure in BUCKET_METRICS.items():
        found = gains.setdefault(figure, gain(figure))
        objects = challenger.truths(bootstrap.size_range_of(bucket))
        if found["median"] is None or found["median"] >= -gate.max_regression or found["interval"][1] >= 0:
            continue
        words = f"{figure} falls by {-found['median']:.4f} ({objects} objects)"
        (reasons if objects >= gate.min_boxes else warnings).append(words)
    return {"passed": not reasons, "reasons": reasons, "warnings": warnings, "gains": gains}


def _unmeasured(metric: str) -> str:
    return f"{metric} cannot be measured: no such object in val"
