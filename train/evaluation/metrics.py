"""How well detections agree with the truth: average precision by IoU, as COCO has it, and by NWD; by size, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from train.detections import Detections, GroundTruth
from train.evaluation import coco, nwd
from train.evaluation.coco import COCO_MAX_DETECTIONS

MATCHED_IOU = 0.5  # from which a detection counts as having found an object, in counts and pictures

Metrics = dict[str, Any]
Precision = NDArray[np.float64]  # [IoU threshold, recall threshold, category, size range, detections counted]
Recall = NDArray[np.float64]  # [IoU threshold, category, size range, detections counted]


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detection found which object of one image."""

    truth: NDArray[np.int64]  # [detections], index of the object found, -1 for a false alarm
    neutral: NDArray[np.bool_]  # [detections], on something ignored: neither right nor wrong
    found: NDArray[np.bool_]  # [truths]


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of one evaluation, by the names of their size ranges."""

    precision: Precision
    recall: Recall
    sizes: tuple[str, ...]

    def ap(self, size: str, threshold: int | None = None, category: int | None = None) -> float | None:
        """Return the mean precision over categories and recalls, at one IoU threshold (an index) or all."""
        return _mean(_pick(self.precision[..., self.sizes.index(size), -1], threshold, category))

    def ar(self, size: str, counted: int = -1) -> float | None:
        """Return the mean recall over categories and thresholds, of so many (an index) detections."""
        return _mean(self.recall[:, :, self.sizes.index(size), counted])


def average_precision(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    categories: Sequence[str],
    *,
    scale: Sequence[float] | None = None,
    comparable: bool = False,
) -> Metrics:
    """Return COCO's figures, those by size bucket and those of each category; None where there is no truth.

    Both sequences hold one entry per image. `scale` judges sizes at so many network pixels per source pixel.
    With `comparable`, 100 detections count per image and category, ignore regions speak for their own category
    alone, and the twelve COCO figures are those of pycocotools. `NWD_AP` and its sizes are train.nearness's.
    """
    scales = np.ones(len(truth)) if scale is None else np.asarray(scale, dtype=np.float64)
    most = max([COCO_MAX_DETECTIONS, *map(len, truth), *map(len, detections)])
    counted = [1, 10, COCO_MAX_DETECTIONS, *([most] if most > COCO_MAX_DETECTIONS and not comparable else [])]
    images = list(zip(truth, detections, scales.tolist(), strict=True))
    shared = (len(images), len(categories))
    by_area = _precision_recall(coco.by_area(images), *shared, coco.COCO_SIZES, counted, comparable)
    by_bucket = _precision_recall(coco.by_bucket(images), *shared, coco.BUCKET_SIZES, counted[-1:], comparable)
    figures: Metrics = {
        "AP": by_area.ap("all"),
        "AP50": by_area.ap("all", 0),
        "AP75": by_area.ap("all", 5),
        **{f"AP_{name}": by_bucket.ap(name) for name in boxes.BUCKETS[:2]},
        **{f"AP_{name}": by_area.ap(name) for name in ("small", "medium", "large")},
        **{f"AP50_{name}": by_bucket.ap(name, 0) for name in boxes.BUCKETS[:2]},
        **{f"AP50_{name}": by_area.ap(name, 0) for name in ("small", "medium", "large")},
        **{f"AR{number}": by_area.ar("all", i) for i, number in enumerate(counted[:3])},
        "AR": by_area.ar("all"),
        **{f"AR_{name}": by_bucket.ar(name) for name in boxes.BUCKETS[:2]},
        **{f"AR_{name}": by_area.ar(name) for name in ("small", "medium", "large")},
    }
    figures |= nwd.average_precision(images, len(categories), counted[-1], comparable=comparable)
    numbers = _counts(truth, len(categories))
    figures["categories"] = {
        name: {
            "AP": by_area.ap("all", category=i),
            "AP50": by_area.ap("all", 0, i),
            "AP_small": by_area.ap("small", category=i),
            "boxes": int(numbers[i]),
        }
        for i, name in enumerate(categories)
    }
    figures["boxes"] = int(numbers.sum())
    figures["buckets"] = _bucket_counts(truth, scales)
    figures["max_detections"] = counted[-1]
    return figures


def match(truth: GroundTruth, detections: Detections, threshold: float = MATCHED_IOU) -> Matches:
    """Return which detections, best score first, find which counted objects of their category, one each."""
    found = np.zeros(len(truth), dtype=np.bool_)
    taken = np.full(len(detections), -1, dtype=np.int64)
    neutral = np.zeros(len(detections), dtype=np.bool_)
    same = detections.category[:, None] == truth.category[None, :]
    overlap = np.where(same & truth.counted, boxes.iou(detections.xyxy, truth.xyxy), 0.0)  # [N, M]
    shared = boxes.intersection(detections.xyxy, truth.xyxy)
    inside = shared >= threshold * np.maximum(boxes.area(detections.xyxy), 1e-9)[:, None]
    on_ignored = (inside & (truth.ignore | (same & truth.difficult))).any(axis=1)
    for i in np.argsort(-detections.score, kind="stable"):
        free = np.where(found, 0.0, overlap[i])
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= threshold:
            taken[i], found[best] = best, True
        else:
            neutral[i] = on_ignored[i]
    return Matches(taken, neutral, found)


def _precision_recall(
    rows: Iterable[coco.SizedImage],
    images: int,
    categories: int,
    sizes: Mapping[str, list[float]],
    counted: Sequence[int],
    comparable: bool,
) -> PrecisionRecall:
    run = coco.run_evaluator(rows, images, categories, sizes, counted, comparable)
    shape = (len(run.params.iouThrs), len(run.params.recThrs), categories, len(sizes), len(counted))
    if not images or not categories:
        return PrecisionRecall(np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0), tuple(sizes))
    run.accumulate()
    precision, recall = (np.asarray(run.eval[name], dtype=np.float64) for name in ("precision", "recall"))
    return PrecisionRecall(precision.reshape(shape), recall.reshape(shape[0], *shape[2:]), tuple(sizes))


def _pick(values: NDArray[np.float64], threshold: int | None, category: int | None) -> NDArray[np.float64]:
    """Return the values [IoU threshold, recall, category] at one threshold and one category, where given."""
    values = values if threshold is None else values[[threshold]]
    return values if category is None else values[..., [category]]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of what there is truth for; None when there is none."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _counts(truth: Iterable[GroundTruth], categories: int) -> NDArray[np.int64]:
    """Return the number of counted objects of each category [categories]."""
    numbers = np.zeros(categories, dtype=np.int64)
    for image in truth:
        numbers += np.bincount(image.category[image.counted], minlength=categories)
    return numbers


def _bucket_counts(truth: Iterable[GroundTruth], scales: NDArray[np.float64]) -> dict[str, int]:
    numbers = np.zeros(len(boxes.BUCKETS), dtype=np.int64)
    for image, scale in zip(truth, scales.tolist(), strict=True):
        counted = boxes.bucket(boxes.side_length(image.xyxy[image.counted]) * scale)
        numbers += np.bincount(counted, minlength=len(boxes.BUCKETS))
    return dict(zip(boxes.BUCKETS, numbers.tolist(), strict=True))
