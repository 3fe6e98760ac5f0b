"""What goes wrong, by the size of the object: the six kinds of mistake of TIDE (Bolya et al. 2008.08115), and seams.

Judged on the detections that are shown, with its two thresholds: from an IoU of 0.5 a box lies on an object, below 0.1
on none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.plan import TilePlan
from train.detections import Detections, GroundTruth
from train.evaluation import metrics

ERROR_TYPES = ("localisation", "class", "both", "duplicate", "background", "missed")
_NEAR = 0.1  # IoU
_CENTRE, _LEAST = 0.5, 1.0  # of sqrt(w * h), and px: how far off a centre may lie


def count_errors(
    truth: Sequence[GroundTruth], found: Sequence[Detections], scale: Sequence[float]
) -> dict[str, dict[str, int]]:
    """Return, by size bucket, objects, those found, and mistakes of each kind.

    A mistake counts under the size of the object it is about, one in the background under its own. An object is
    missed when no detection of any kind is about it.
    """
    names = ("objects", "found", *ERROR_TYPES)
    table = np.zeros((len(boxes.BUCKETS), len(names)), dtype=np.int64)
    for image, seen, per_pixel in zip(truth, found, scale, strict=True):
        matched = metrics.match(image, seen)
        of_truth, of_found = (boxes.bucket(boxes.side_length(part.xyxy) * per_pixel) for part in (image, seen))
        for row, (mask, sizes) in enumerate(((image.counted, of_truth), (matched.found, of_truth))):
            np.add.at(table[:, row], sizes[mask], 1)
        wrong = np.flatnonzero((matched.truth < 0) & ~matched.neutral)
        kinds, about = _classify(image, seen, matched, wrong)
        sizes = np.where(about >= 0, of_truth[about] if len(image) else 0, of_found[wrong])
        np.add.at(table, (sizes, 2 + kinds), 1)
        explained = matched.found.copy()
        explained[about[(about >= 0) & (kinds < ERROR_TYPES.index("duplicate"))]] = True
        np.add.at(table[:, -1], of_truth[image.counted & ~explained], 1)
    return {
        bucket: dict(zip(names, row, strict=True)) for bucket, row in zip(boxes.BUCKETS, table.tolist(), strict=True)
    }


def confusion_matrix(truth: Sequence[GroundTruth], found: Sequence[Detections], categories: int) -> list[list[int]]:
    """Return how often what is of one category was found as another [categories + 1, categories + 1].

    Rows are the truth and columns what was found, the last of each standing for nothing. Boxes are matched by IoU
    alone, best score first, the own category before others.
    """
    table = np.zeros((categories + 1, categories + 1), dtype=np.int64)
    for image, seen in zip(truth, found, strict=True):
        matched = metrics.match(image, seen)
        owner = matched.truth.copy()
        free = image.counted & ~matched.found
        overlap = boxes.iou(seen.xyxy, image.xyxy)
        for row in np.argsort(-seen.score, kind="stable"):
            if owner[row] >= 0 or matched.neutral[row]:
                continue
            left = np.where(free, overlap[row], 0.0)
            best = int(left.argmax()) if len(left) else -1
            if best >= 0 and left[best] >= metrics.MATCHED_IOU:
                owner[row], free[best] = best, False
        judged = ~matched.neutral
        rows = np.where(owner >= 0, image.category[owner] if len(image) else 0, categories)
        np.add.at(table, (rows[judged], seen.category[judged]), 1)
        np.add.at(table[:, categories], image.category[free], 1)
    rows_of: list[list[int]] = table.tolist()
    return rows_of


def _classify(
    image: GroundTruth, seen: Detections, matched: metrics.Matches, wrong: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the kind of each false detection, and the object it is about, -1 for none."""
    overlap = np.where(image.counted, boxes.iou(seen.xyxy[wrong], image.xyxy), 0.0)  # [W, N]
    same = seen.category[wrong, None] == image.category
    if not overlap.size:
        return np.full(len(wrong), ERROR_TYPES.index("background")), np.full(len(wrong), -1)

    def nearest(where: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        values = np.where(where, overlap, 0.0)
        return values.max(axis=1), values.argmax(axis=1)

    at = metrics.MATCHED_IOU
    ranked = [
        ("duplicate", *nearest(same & matched.found), at),
        ("class", *nearest(~same), at),
        ("localisation", *nearest(same), _NEAR),
        ("both", *nearest(~same), _NEAR),
    ]
    kinds, about = np.full(len(wrong), ERROR_TYPES.index("background")), np.full(len(wrong), -1)
    open_ = np.ones(len(wrong), dtype=np.bool_)
    for name, value, owner, threshold in ranked:
        hit = open_ & (value >= threshold)
        kinds[hit], about[hit] = ERROR_TYPES.index(name), owner[hit]
        open_ &= ~hit
    return kinds, about


def seam_recall(
    truth: Sequence[GroundTruth], found: Sequence[Detections], sizes_wh: Iterable[tuple[int, int]], plan: TilePlan
) -> dict[str, Any]:
    """Return recall of objects that a scale-1 tile cuts, and of those that lie whole in each."""
    counts = np.zeros((2, 2), dtype=np.int64)  # [interior or seam, objects or found]
    for image, seen, wh in zip(truth, found, sizes_wh, strict=True):
        cut = np.zeros(len(image), dtype=np.bool_)
        for window in plan.windows(*wh, 1.0):
            visible = boxes.visibility(image.xyxy, window)
            cut |= (visible > 0) & (visible < 1 - 1e-9)
        hit = metrics.match(image, seen).found
        for row, mine in enumerate((image.counted & ~cut, image.counted & cut)):
            counts[row] += (mine.sum(), (mine & hit).sum())
    return {
        name: {"objects": int(total), "recall": round(int(hits) / int(total), 6) if total else None}
        for name, (total, hits) in zip(("interior", "seam"), counts, strict=True)
    }


def centre_recall(
    truth: Sequence[GroundTruth], found: Sequence[Detections], scale: Sequence[float]
) -> dict[str, float | None]:
    """Return recall by size bucket where a detection counts whose centre lies within half an object's side of its own.

    IoU asks more of small boxes than of large ones: this asks of all the same, one detection for one object.
    """
    counts = np.zeros((len(boxes.BUCKETS), 2), dtype=np.int64)
    for image, seen, per_pixel in zip(truth, found, scale, strict=True):
        sizes = boxes.bucket(boxes.side_length(image.xyxy) * per_pixel)
        middle = [(part.xyxy[:, :2] + part.xyxy[:, 2:]) / 2 for part in (seen, image)]
        away = np.sqrt(((middle[0][:, None] - middle[1]) ** 2).sum(axis=2))  # [M, N]
        reach = np.maximum(_CENTRE * boxes.side_length(image.xyxy), _LEAST)
        away[(seen.category[:, None] != image.category) | ~image.counted | (away > reach)] = np.inf
        hit = np.zeros(len(image), dtype=np.bool_)
        for row in np.argsort(-seen.score, kind="stable"):
            free = np.where(hit, np.inf, away[row])
            if len(free) and np.isfinite(best := free.min()):
                hit[int(np.flatnonzero(free == best)[0])] = True
        for column, mask in enumerate((image.counted, hit)):
            np.add.at(counts[:, column], sizes[mask], 1)
    return {
        name: round(int(hits) / int(total), 6) if total else None
        for name, (total, hits) in zip(boxes.BUCKETS, counts, strict=True)
    }
