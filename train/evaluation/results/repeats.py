"""The detections of a file that repeat another one, and what they cost: each of them counts as one more detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl.evaluation import FileReading
from train.detections import Detections, GroundTruth
from train.metrics import bootstrap, coco
from train.metrics.matching import match_images
from train.metrics.sized_boxes import scaled_images, size_range_of


def measure_repeats(
    reading: FileReading, truth: Sequence[GroundTruth], detections: Sequence[Detections], categories: int
) -> FileReading:
    """Return the reading with the number of repeated detections, and AP without them where there are any."""
    distinct = [_drop_repeats(image) for image in detections]
    repeated = sum(map(len, detections)) - sum(map(len, distinct))
    if not repeated:
        return reading
    matched = match_images(scaled_images(truth, distinct), categories, coco.IOU, sizes=[size_range_of("")])
    ap = float(bootstrap.average_precision(matched, "AP", np.ones((1, len(truth)), dtype=np.int64))[0])
    return reading.model_copy(update={"repeated": repeated, "AP_without_repeats": None if np.isnan(ap) else ap})


def _drop_repeats(detections: Detections) -> Detections:
    """Return the detections of an image without those of the category and box of another; the best score stays."""
    order = np.argsort(-detections.score, kind="stable")
    rows = np.column_stack([detections.category, detections.xyxy])[order]
    return detections.take(order[np.sort(np.unique(rows, axis=0, return_index=True)[1])])
