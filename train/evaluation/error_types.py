"""Error types by object size as TIDE defines them (Bolya et al. 2020, arXiv 2008.08115), and recall at tile borders.

They are counted on the detections at or above the confidence thresholds, with TIDE's two IoU thresholds, 0.5
(foreground) and 0.1 (background). A false positive is, in this order: a *duplicate* (IoU >= 0.5 with a matched object
of its category), a *class* error (IoU >= 0.5 with an object of another category), a *localisation* error (0.1 to 0.5,
its category), *both* (0.1 to 0.5, another category), else *background*. A *missed* object has no detection about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.evaluation import ErrorCounts, Recall, Seams
from etl.plan import TilePlan
from train.detections import Detections, GroundTruth, Index
from train.evaluation import coco, metrics
from train.evaluation.pairs import centred_pairs

ERROR_TYPES = ("localisation", "class", "both", "duplicate", "background", "missed")
_BACKGROUND_IOU = 0.1  # below it a detection is about no object
_PAIRS_AT_ONCE = 2**20  # of false positives and objects
_CENTRE_SHARE, _CENTRE_PX = 0.5, 1.0  # of sqrt(w * h), and at least: how far off a centre may lie


def count_errors(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], scale: Sequence[float]
) -> BySize[ErrorCounts]:
    """Return objects, matched objects and errors of each type.

    All sequences hold one entry per image, `scale` network pixels per source pixel. An error counts under the size of
    the object it is about, a background error under its own.
    """
    names = ("objects", "found", *ERROR_TYPES)
    table = np.zeros((len(boxes.BUCKETS), len(names)), dtype=np.int64)
    for image, detected, per_pixel in zip(truth, detections, scale, strict=True):
        matched = metrics.match(image, detected)
        of_truth, of_detection = (boxes.bucket(boxes.side_length(part.xyxy) * per_pixel) for part in (image, detected))
        np.add.at(table[:, 0], of_truth[image.counted], 1)
        np.add.at(table[:, 1], of_truth[matched.found], 1)
        explained = matched.found.copy()
        for wrong in _split(np.flatnonzero(matched.false_positive), len(image)):
            types, about = _classify(image, detected, matched, wrong)
            sizes = np.where(about >= 0, of_truth[about] if len(image) else 0, of_detection[wrong])
            np.add.at(table, (sizes, 2 + types), 1)
            explained[about[(about >= 0) & (types < ERROR_TYPES.index("duplicate"))]] = True
        np.add.at(table[:, -1], of_truth[image.counted & ~explained], 1)
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
        matched = metrics.match(image, detected)
        free = image.counted & ~matched.found
        detection, other = metrics.find_centred(image, detected)
        iou = coco.iou(detected.xyxy[detection], image.xyxy[other])
        close = (iou >= metrics.MATCHED_IOU) & free[other] & matched.false_positive[detection]
        owner = np.maximum(matched.owner, metrics.assign(detection, other, iou, close, detected.score))
        free[owner[owner >= 0]] = False
        counted = ~matched.neutral
        rows = np.where(owner >= 0, image.category[owner] if len(image) else 0, categories)
        np.add.at(table, (rows[counted], detected.category[counted]), 1)
        np.add.at(table[:, categories], image.category[free], 1)
    return tuple(map(tuple, table.tolist()))


def _split(detections: Index, objects: int) -> list[Index]:
    """Return the detections in parts whose pairs with so many objects fit into memory."""
    return np.array_split(detections, 1 + len(detections) * objects // _PAIRS_AT_ONCE)


def _classify(
    image: GroundTruth, detections: Detections, matched: metrics.Matches, wrong: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the error type (index) of each false positive, and the object it is about, -1 for background."""
    types, about = np.full(len(wrong), ERROR_TYPES.index("background")), np.full(len(wrong), -1)
    overlap = np.where(image.counted, boxes.iou(detections.xyxy[wrong], image.xyxy), 0.0)  # [W, N]
    if not overlap.size:
        return types, about
    same = detections.category[wrong, None] == image.category
    unclassified = np.ones(len(wrong), dtype=np.bool_)
    for name, candidates, threshold in (
        ("duplicate", same & matched.found, metrics.MATCHED_IOU),
        ("class", ~same, metrics.MATCHED_IOU),
        ("localisation", same, _BACKGROUND_IOU),
        ("both", ~same, _BACKGROUND_IOU),
    ):
        iou = np.where(candidates, overlap, 0.0)
        is_type = unclassified & (iou.max(axis=1) >= threshold)
        types[is_type], about[is_type] = ERROR_TYPES.index(name), iou.argmax(axis=1)[is_type]
        unclassified &= ~is_type
    return types, about


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
        matched = metrics.match(image, detected).found
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
    owner = metrics.assign(detection, other, -distance, close, detections.score)
    matched = np.zeros(len(truth), dtype=np.bool_)
    matched[owner[owner >= 0]] = True
    return matched


def _share(hits: int, total: int) -> float | None:
    return round(hits / total, 6) if total else None
