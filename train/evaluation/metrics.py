"""COCO's average precision and recall, by size and by category, and the matching of one image.

AP at one IoU threshold is the mean over 101 recall levels r = 0, 0.01 ... 1 of the interpolated precision, the highest
precision p(s) at any recall s >= r:

    AP = 1/101 * sum_r max_{s >= r} p(s)

averaged over the categories with ground truth. `AP` is the mean over IoU 0.5, 0.55 ... 0.95 (Lin et al. 2014, Microsoft
COCO, arXiv 1405.0312; pycocotools gives the same numbers). `AR` is the recall averaged likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.evaluation import CategoryMetrics, Metrics
from train.detections import Detections, GroundTruth
from train.evaluation import coco, nwd
from train.evaluation.coco import COCO_MAX_DETECTIONS

MATCHED_IOU = 0.5  # from which a detection matches an object, in counts and pictures

Precision = NDArray[np.float64]  # [IoU threshold, recall level, category, size range, detections counted]
Recall = NDArray[np.float64]  # [IoU threshold, category, size range, detections counted]


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detection matches which object of one image."""

    owner: NDArray[np.int64]  # [detections], index of the matched object, -1 without one
    neutral: NDArray[np.bool_]  # [detections], on an ignore region or a difficult object: neither right nor wrong
    found: NDArray[np.bool_]  # [objects], matched by a detection

    @property
    def false_positive(self) -> NDArray[np.bool_]:
        """The detections that match nothing [detections]."""
        return (self.owner < 0) & ~self.neutral


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall of one evaluation, by the names of its size ranges; -1 without ground truth."""

    precision: Precision
    recall: Recall
    sizes: tuple[str, ...]

    def ap(self, size: str, threshold: int | None = None, category: int | None = None) -> float | None:
        """Return AP of a size range, at one IoU threshold (an index) or all, of one category or all."""
        values = self.precision[..., self.sizes.index(size), -1]
        values = values if threshold is None else values[[threshold]]
        return _mean(values if category is None else values[..., [category]])

    def ar(self, size: str, max_detections: int = -1) -> float | None:
        """Return AR of a size range, with so many detections counted (an index)."""
        return _mean(self.recall[:, :, self.sizes.index(size), max_detections])


def average_precision(
    truth: Sequence[GroundTruth],
    detections: Sequence[Detections],
    categories: Sequence[str],
    *,
    scale: Sequence[float] | None = None,
    coco_rules: bool = False,
) -> Metrics:
    """Return AP, AR and NWD_AP, by size and by category; None where there is no ground truth.

    Both sequences hold one entry per image. `scale` gives network pixels per source pixel of each image, to measure
    sizes in network pixels. With `coco_rules`, 100 detections count per image and category and ignore regions excuse
    their own category alone: the twelve COCO metrics then equal those of pycocotools. NWD_AP: see train.evaluation.nwd.
    """
    scales = np.ones(len(truth)) if scale is None else np.asarray(scale, dtype=np.float64)
    most = max([COCO_MAX_DETECTIONS, *map(len, truth), *map(len, detections)])
    limits = [1, 10, COCO_MAX_DETECTIONS, *([most] if most > COCO_MAX_DETECTIONS and not coco_rules else [])]
    images = list(zip(truth, detections, scales.tolist(), strict=True))
    by_area = _precision_recall(coco.by_area(images), len(categories), coco.COCO_SIZES, limits, coco_rules)
    by_bucket = _precision_recall(coco.by_bucket(images), len(categories), coco.BUCKET_SIZES, limits[-1:], coco_rules)
    values = _metric_values(by_area, by_bucket)
    values |= nwd.average_precision(images, len(categories), limits[-1], coco_rules=coco_rules)
    objects = _count_objects(truth, len(categories))
    return Metrics(
        **values,
        categories={name: _category_metrics(by_area, i, int(objects[i])) for i, name in enumerate(categories)},
        boxes=int(objects.sum()),
        buckets=BySize.of(_count_by_bucket(truth, scales).tolist()),
        max_detections=limits[-1],
    )


def _metric_values(by_area: PrecisionRecall, by_bucket: PrecisionRecall) -> dict[str, float | None]:
    """Return the metrics by IoU and object size: very tiny and tiny by bucket, the others by area as in COCO."""
    sizes = [*((name, by_bucket) for name in boxes.BUCKETS[:2]), *((name, by_area) for name in boxes.BUCKETS[2:])]
    return {
        "AP": by_area.ap("all"),
        "AP50": by_area.ap("all", 0),
        "AP75": by_area.ap("all", 5),
        **{f"AP_{name}": values.ap(name) for name, values in sizes},
        **{f"AP50_{name}": values.ap(name, 0) for name, values in sizes},
        **{f"AR{number}": by_area.ar("all", i) for i, number in enumerate((1, 10, COCO_MAX_DETECTIONS))},
        "AR": by_area.ar("all"),
        **{f"AR_{name}": values.ar(name) for name, values in sizes},
    }


def _category_metrics(by_area: PrecisionRecall, category: int, objects: int) -> CategoryMetrics:
    return CategoryMetrics(
        AP=by_area.ap("all", category=category),
        AP50=by_area.ap("all", 0, category),
        AP_small=by_area.ap("small", category=category),
        boxes=objects,
    )


def match(truth: GroundTruth, detections: Detections, threshold: float = MATCHED_IOU) -> Matches:
    """Return which detection matches which counted object of its category.

    Greedy, best score first, one object each: the free object of highest IoU, if that reaches the threshold.
    """
    found = np.zeros(len(truth), dtype=np.bool_)
    owner = np.full(len(detections), -1, dtype=np.int64)
    neutral = np.zeros(len(detections), dtype=np.bool_)
    same = detections.category[:, None] == truth.category[None, :]
    overlap = np.where(same & truth.counted, boxes.iou(detections.xyxy, truth.xyxy), 0.0)  # [D, N]
    shared = boxes.intersection(detections.xyxy, truth.xyxy)
    inside = shared >= threshold * np.maximum(boxes.area(detections.xyxy), 1e-9)[:, None]
    on_ignored = (inside & (truth.ignore | (same & truth.difficult))).any(axis=1)
    for i in np.argsort(-detections.score, kind="stable"):
        free = np.where(found, 0.0, overlap[i])
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= threshold:
            owner[i], found[best] = best, True
        else:
            neutral[i] = on_ignored[i]
    return Matches(owner, neutral, found)


def _precision_recall(
    images: Iterable[coco.SizedImage],
    categories: int,
    size_ranges: Mapping[str, list[float]],
    max_detections: Sequence[int],
    coco_rules: bool,
) -> PrecisionRecall:
    images = list(images)
    evaluator = coco.run_evaluator(images, categories, size_ranges, max_detections, coco_rules)
    params = evaluator.params
    shape = (len(params.iouThrs), len(params.recThrs), categories, len(size_ranges), len(max_detections))
    if not images or not categories:
        return PrecisionRecall(np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0), tuple(size_ranges))
    evaluator.accumulate()
    precision, recall = (np.asarray(evaluator.eval[name], dtype=np.float64) for name in ("precision", "recall"))
    return PrecisionRecall(precision.reshape(shape), recall.reshape(shape[0], *shape[2:]), tuple(size_ranges))


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the values with ground truth; None without any."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _count_objects(truth: Iterable[GroundTruth], categories: int) -> NDArray[np.int64]:
    """Return the number of counted objects of each category [categories]."""
    numbers = np.zeros(categories, dtype=np.int64)
    for image in truth:
        numbers += np.bincount(image.category[image.counted], minlength=categories)
    return numbers


def _count_by_bucket(truth: Iterable[GroundTruth], scales: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of counted objects of each size bucket [buckets]."""
    numbers = np.zeros(len(boxes.BUCKETS), dtype=np.int64)
    for image, scale in zip(truth, scales.tolist(), strict=True):
        counted = boxes.bucket(boxes.side_length(image.xyxy[image.counted]) * scale)
        numbers += np.bincount(counted, minlength=len(boxes.BUCKETS))
    return numbers
