"""COCO's average precision and recall, by size and by category, and the matching of one image.

`AP` is the average precision (train.metrics.precision) averaged over the categories with ground truth and over IoU
0.5, 0.55 ... 0.95 (Lin et al. 2014, Microsoft COCO, arXiv 1405.0312; pycocotools gives the same numbers). `AR` is the
recall averaged likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.evaluation import CategoryMetrics, Metrics
from train.detections import Detections, GroundTruth, Index
from train.metrics import coco, nwd, precision
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.pairs import centred_pairs
from train.metrics.sized_boxes import BUCKET_RANGES, Floats, Mask, ScaledImage, scaled_images, size_range_of

MATCHED_IOU = 0.5  # from which a detection matches an object, in counts and pictures


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
    their own category alone: the twelve COCO metrics then equal those of pycocotools. NWD_AP: see train.metrics.nwd.
    """
    images = scaled_images(truth, detections, scale)
    most = coco.MAX_DETECTIONS if coco_rules else None
    matched = match_images(images, len(categories), coco.IOU, max_detections=most, coco_rules=coco_rules)
    return measure_matches(images, matched, categories, coco_rules=coco_rules)


def measure_matches(
    images: Sequence[ScaledImage], matched: MatchedDetections, categories: Sequence[str], *, coco_rules: bool = False
) -> Metrics:
    """Return the metrics of average_precision from the matches by IoU."""
    most = max([coco.MAX_DETECTIONS, *(max(len(truth), len(detections)) for truth, detections, _ in images)])
    most = coco.MAX_DETECTIONS if coco_rules else most
    by_nwd = nwd.match(images, len(categories), most, coco_rules=coco_rules)
    return Metrics(
        **_by_iou(matched),
        **nwd.by_size(by_nwd),
        categories=_by_category(matched, categories),
        boxes=matched.objects("all"),
        buckets=BySize.of(matched.objects(size) for size in BUCKET_RANGES),
        AP_by_bucket=_by_bucket(matched),
        NWD_AP_by_bucket=_by_bucket(by_nwd),
        max_detections=most,
    )


def _by_iou(matched: MatchedDetections) -> dict[str, float | None]:
    """Return AP and AR, of all objects and by size."""
    ap = {name: precision.by_category(matched, size_range_of(name)) for name in ("", *boxes.BUCKETS)}

    def ar(size: str, most: int | None = None) -> float | None:
        recalls = [precision.recall(category, most) for category in matched.ranges[size_range_of(size)]]
        return precision.mean(np.array(recalls))

    return {
        **{kind: precision.mean(ap[""][:, rows]) for kind, rows in coco.AP_THRESHOLDS.items()},
        **{f"AP_{name}": precision.mean(ap[name]) for name in boxes.BUCKETS},
        **{f"AP50_{name}": precision.mean(ap[name][:, coco.AP_THRESHOLDS["AP50"]]) for name in boxes.BUCKETS},
        **{f"AR{most}": ar("", most) for most in (1, 10, coco.MAX_DETECTIONS)},
        "AR": ar(""),
        **{f"AR_{name}": ar(name) for name in boxes.BUCKETS},
    }


def _by_bucket(matched: MatchedDetections) -> BySize[float | None]:
    return BySize.of(precision.mean(precision.by_category(matched, size)) for size in BUCKET_RANGES)


def _by_category(matched: MatchedDetections, categories: Sequence[str]) -> dict[str, CategoryMetrics]:
    every, small = (precision.by_category(matched, size) for size in ("all", "small"))
    return {
        name: CategoryMetrics(
            AP=precision.mean(every[i]),
            AP50=precision.mean(every[i, coco.AP_THRESHOLDS["AP50"]]),
            AP_small=precision.mean(small[i]),
            boxes=int(matched.ranges["all"][i].objects.sum()),
        )
        for i, name in enumerate(categories)
    }


def match(truth: GroundTruth, detections: Detections) -> Matches:
    """Return which detection matches which counted object of its category.

    Greedy, best score first, one object each: the free object of highest IoU, if that reaches MATCHED_IOU.
    """
    detection, other = find_centred(truth, detections)
    same, counted = detections.category[detection] == truth.category[other], truth.counted[other]
    iou = coco.iou(detections.xyxy[detection], truth.xyxy[other])
    owner = assign(detection, other, iou, same & counted & (iou >= MATCHED_IOU), detections.score)
    found = np.zeros(len(truth), dtype=np.bool_)
    found[owner[owner >= 0]] = True
    # by such a share inside an ignore region or a difficult object of their category
    inside = coco.share_inside(detections.xyxy[detection], truth.xyxy[other]) >= MATCHED_IOU
    excused = np.zeros(len(detections), dtype=np.bool_)
    excused[detection[inside & ~counted & (truth.ignore[other] | same)]] = True
    return Matches(owner, (owner < 0) & excused, found)


def find_centred(truth: GroundTruth, detections: Detections) -> tuple[Index, Index]:
    """Return the pairs (of detections, of labelled boxes) that may have an IoU of MATCHED_IOU, of any categories."""
    together = np.zeros(max(len(detections), len(truth)), dtype=np.int64)
    return centred_pairs(detections.xyxy, together[: len(detections)], truth.xyxy, together[: len(truth)])


def assign(detection: Index, other: Index, closeness: Floats, close: Mask, score: Floats) -> Index:
    """Return the object that each detection takes [D], -1 for none, given pairs [P] and which of them may match.

    Best score first, one object each: the closest that is free, of equally close ones the first.
    """
    rank = np.empty(len(score), dtype=np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
    detection, other, closeness = detection[close], other[close], closeness[close]
    order = np.lexsort((other, -closeness, rank[detection]))
    owner: dict[int, int] = {}
    taken = set[int]()
    for row, column in zip(detection[order].tolist(), other[order].tolist(), strict=True):
        if row not in owner and column not in taken:
            owner[row] = column
            taken.add(column)
    return np.array([owner.get(row, -1) for row in range(len(score))], dtype=np.int64)
