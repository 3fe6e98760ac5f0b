"""The detections of one view as rows, from what the network returns for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, as_boxes
from train.detections import Detections
from train.models.trained_labels import PER_VIEW
from train.prediction.merge import suppress

CANDIDATES = 8192  # raw outputs kept for suppression, best scores first, where PER_VIEW detections are
RAW_IOU = 0.7  # suppression threshold within a view, Ultralytics' default

Rows = NDArray[np.float64]  # [N, 6]: xyxy in network pixels, score, category
Output = NDArray[np.float32]


def candidates(most: int) -> int:
    """Return how many raw outputs are kept for the suppression that leaves `most` detections."""
    return max(CANDIDATES, CANDIDATES * most // PER_VIEW)


def above_confidence(output: Output, confidence: float, most: int = PER_VIEW) -> Rows:
    """Return the best rows above the confidence of an output [N, 6] that needs no suppression."""
    rows = output[output[:, 4] > float32_limit(confidence)].astype(np.float64)
    return rows if len(rows) <= most else rows[np.sort(np.argsort(-rows[:, 4], kind="stable")[:most])]


def suppress_raw(raw: Output, confidence: float, most: int = PER_VIEW) -> Rows:
    """Return the best rows above the confidence, suppressed, of a raw output [4 + C, N] (centre, size, scores)."""
    category, candidate = np.nonzero(raw[4:] > float32_limit(confidence))
    score = raw[4 + category, candidate].astype(np.float64)
    best = np.argsort(-score, kind="stable")[: candidates(most)]
    category, score, cxcywh = (
        category[best].astype(np.int64),
        score[best],
        raw[:4, candidate[best]].T.astype(np.float64),
    )
    xyxy: Boxes = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], axis=1)
    finite = np.isfinite(xyxy).all(axis=1)
    detections = Detections(as_boxes(xyxy[finite]), score[finite], category[finite], as_boxes(xyxy[finite]))
    kept = detections.take(suppress(detections, "iou", RAW_IOU)[:most])
    return np.concatenate([kept.xyxy, kept.score[:, None], kept.category[:, None]], axis=1)


def float32_limit(confidence: float) -> np.float32:
    """Return the largest float32 that is not above the confidence: the same float32 scores are above both."""
    limit = np.float32(confidence)
    return limit if float(limit) <= confidence else np.nextafter(limit, np.float32(-np.inf))
