"""Errors of each TIDE type by object size (train.metrics.tide), confusion, and recall at tile borders.

They are counted on the detections at or above the confidence thresholds, at TIDE's IoU thresholds of 0.5 and 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.evaluation import ErrorCounts, Recall, Seams
from etl.plan import TilePlan
from train.detections import Detections, GroundTruth
from train.metrics import coco, summary, tide
from train.metrics.pairs import centred_pairs

_CENTRE_SHARE, _CENTRE_PX = 0.5, 1.0  # of sqrt(w * h), and at least: how far off a centre may lie


def count_errors(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], scale: Sequence[float]
) -> BySize[ErrorCounts]:
    """Return objects, matched objects and errors of each type.

    All sequences hold one entry per image, `scale` network pixels per source pixel. An error counts under the size of
    the object it is about, a background error under its own.
    """
    names = ("objects", "found", *tide.ERROR_TYPES)
    table = np.zeros((len(boxes.BUCKETS), len(names)), dtype=np.int64)
    for image, detected, per_pixel in zip(truth, detections, scale, strict=True):
        matched = summary.match(image, detected)
        of_truth, of_detection = (boxes.bucket(boxes.side_length(part.xyxy) * per_pixel) for part in (image, detected))
        np.add.at(table[:, 0], of_truth[image.counted], 1)
        np.add.at(table[:, 1], of_truth[matched.found], 1)
        errors = tide.find_errors(image, detected, matched)
        np.add.at(table, (errors.values(of_truth, of_detection), 2 + errors.type), 1)
    return BySize.of(ErrorCounts(**dict(zip(names, row, strict=True))) for row in table.tolist())


def confusion_matrix(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], categories: int
) -> tuple[tuple[int, ...], ...]:
    """Return how often an object of one category was detected as another [categories + 1, categories + 1].

    Rows are the ground truth, columns the detected category; the last row counts false positives, the last column
    missed objects. Boxes are matched by IoU alone, best score first, the own category before others.
    """
    table = np.zeros((categories + 1, categories + 1), dtype=np.int64)
    for image, detected in zip(truth, detections, strict=True):
        matched = summary.match(image, detected)
        free = image.counted & ~matched.found
        detection, other = summary.find_centred(image, detected)
        iou = coco.iou(detected.xyxy[detection], image.xyxy[other])
        close = (iou >= summary.MATCHED_IOU) & free[other] & matched.false_positive[detection]
        owner = np.maximum(matched.owner, summary.assign(detection, other, iou, close, detected.score))
        free[owner[owner >= 0]] = False
        counted = ~matched.neutral
        rows = np.where(owner >= 0, image.category[owner] if len(image) else 0, categories)
        np.add.at(table, (rows[counted], detected.category[counted]), 1)
        np.add.at(table[:, categories], image.category[free], 1)
    return tuple(map(tuple, table.tolist()))


def seam_recall(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    sizes_wh: Iterable[tuple[int, int]],
    plan: TilePlan,
) -> Seams:
    """Return the recall of objects that lie whole in every scale-1 tile showing them, and of those a border cuts."""
    counts = np.zeros((2, 2), dtype=np.int64)  # [interior or seam, objects or found]
    for image, detected, wh in zip(truth, detections, sizes_wh, strict=True):
        cut = np.zeros(len(image), dtype=np.bool_)
        for window in plan.windows(*wh, 1.0):
            visible = boxes.visibility(image.xyxy, window)
            cut |= (visible > 0) & (visible < 1 - 1e-9)
        matched = summary.match(image, detected).found
        for row, objects in enumerate((image.counted & ~cut, image.counted & cut)):
            counts[row] += (objects.sum(), (objects & matched).sum())
    interior, seam = (Recall(objects=total, recall=_share(hits, total)) for total, hits in counts.tolist())
    return Seams(interior=interior, seam=seam)


def centre_recall(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], scale: Sequence[float]
) -> BySize[float | None]:
    """Return recall where a detection matches an object if their centres are within half the object's side.

    Greedy, best score first, one object each, the nearest one. IoU is stricter for small boxes than for large ones;
    this criterion is the same for all sizes.
    """
    counts = np.zeros((len(boxes.BUCKETS), 2), dtype=np.int64)
    for image, detected, per_pixel in zip(truth, detections, scale, strict=True):
        sizes = boxes.bucket(boxes.side_length(image.xyxy) * per_pixel)
        matched = _match_centres(image, detected)
        for column, objects in enumerate((image.counted, matched)):
            np.add.at(counts[:, column], sizes[objects], 1)
    return BySize.of(_share(hits, total) for total, hits in counts.tolist())


def _match_centres(truth: GroundTruth, detections: Detections) -> NDArray[np.bool_]:
    """Return which objects [N] a detection of their category matches by its centre."""
    of_detection, of_truth = ((part.xyxy[:, :2] + part.xyxy[:, 2:]) / 2 for part in (detections, truth))
    reach = np.maximum(_CENTRE_SHARE * boxes.side_length(truth.xyxy), _CENTRE_PX)
    around = np.concatenate([of_truth - reach[:, None], of_truth + reach[:, None]], axis=1)
    detection, other = centred_pairs(detections.xyxy, detections.category, around, truth.category)
    distance = np.sqrt(((of_detection[detection] - of_truth[other]) ** 2).sum(axis=1))
    close = truth.counted[other] & (distance <= reach[other])
    owner = summary.assign(detection, other, -distance, close, detections.score)
    matched = np.zeros(len(truth), dtype=np.bool_)
    matched[owner[owner >= 0]] = True
    return matched


def _share(hits: int, total: int) -> float | None:
    return round(hits / total, 6) if total else None
