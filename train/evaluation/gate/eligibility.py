"""Whether a model may be a champion at all: enough objects to judge by, and better than not looking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from etl.config import Config
from train.detections import Detections
from train.evaluation.detectors import DetectedImages
from train.evaluation.gate import comparison, rule, trivial
from train.metrics import bootstrap
from train.metrics.matching import MatchedDetections
from train.metrics.sized_boxes import size_range_of


def disqualify(
    config: Config, detected: DetectedImages, matched: MatchedDetections, metric: str, sites: Sequence[str]
) -> list[str]:
    """Return why the gate never promotes this model, whatever the champion is; empty if it may.

    Too few objects to judge by, no correct detection, or not better than a detector that does not look at the image.
    """
    objects, least = matched.objects(size_range_of(metric.partition("_")[2])), config.gate.min_boxes
    if objects == 0:
        return [rule.unmeasured(metric)]
    if objects < least:
        return [f"{metric} is measured on {objects} objects, fewer than gate.min_boxes ({least}): too few to judge by"]
    for name in dict.fromkeys((metric, "AP")):
        if not _value(matched, name) > 0:
            return [f"{name} is 0: no correct detection in val"]
    for description, detections in _trivial_detectors(detected, sites):
        trivial_matches = comparison.match(detected, detections, config.evaluate.size_reference)
        if not rule.is_certain(comparison.gain(matched, trivial_matches, metric)):
            return [
                f"{metric} {_value(matched, metric):.4f} is no better, beyond luck, than that of a detector that does "
                f"not look at the image: {_value(trivial_matches, metric):.4f} by {description}"
            ]
    return []


def _value(matched: MatchedDetections, metric: str) -> float:
    every_image_once = np.ones((1, matched.images), dtype=np.int64)
    return float(bootstrap.average_precision(matched, metric, every_image_once)[0])


def _trivial_detectors(detected: DetectedImages, sites: Sequence[str]) -> Iterator[tuple[str, Sequence[Detections]]]:
    """Yield the detections of detectors that do not look at the image, described in words."""
    sizes = [image.wh for image in detected.images]
    exchanged = trivial.exchange_images(detected.detections["combined"], sizes, sites)
    if exchanged is not None:
        yield "its own detections on other images", exchanged
    truth = [image.truth for image in detected.images]
    yield "the same boxes in every image", trivial.constant_boxes(truth, sizes, len(detected.detector.categories))
