"""COCO's evaluator on our ground truth and detections: which detection matches which object, by category and size.

faster-coco-eval does the matching; ignore regions, difficult objects and size buckets are added here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from train.detections import EVERY_CATEGORY, Detections, GroundTruth

log = logging.getLogger(__name__)
IOU_THRESHOLDS = 10  # 0.5, 0.55 ... 0.95
COCO_MAX_DETECTIONS = 100  # per image and category
COCO_SIZES = {"all": [0.0, 1e10], "small": [0.0, 32.0**2], "medium": [32.0**2, 96.0**2], "large": [96.0**2, 1e10]}
BUCKET_SIZES = {name: [float(i), float(i)] for i, name in enumerate(boxes.BUCKETS)}  # ranges of the bucket's number
Floats = NDArray[np.float64]


class SizedImage(NamedTuple):
    """Ground truth and detections of one image, with the size of each in the unit of the size ranges."""

    truth: GroundTruth
    truth_size: Floats  # [N]
    detections: Detections
    detection_size: Floats  # [D]


class _Annotation(TypedDict, total=False):
    """An object or a detection in COCO's format; the evaluator takes `area` for its size."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height
    area: float
    iscrowd: int
    score: float


def run_evaluator(
    images: Sequence[SizedImage],
    categories: int,
    size_ranges: Mapping[str, list[float]],
    max_detections: Sequence[int],
    coco_rules: bool,
) -> Any:
    """Return faster-coco-eval's evaluator after matching every image, to be accumulated or read image by image.

    Size ranges hold both their ends. With `coco_rules` an ignore region excuses detections of its own category alone.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    labels: list[_Annotation] = []
    results: list[_Annotation] = []
    for number, image in enumerate(images):
        detections = image.detections
        labels += _labels(number, image.truth, image.truth_size, detections, coco_rules)
        results += _annotations(number, detections.xyxy, detections.category, image.detection_size, detections.score)
    for entries in (labels, results):
        for number, entry in enumerate(entries, start=1):  # from 1: COCO takes 0 for "no match"
            entry["id"] = number
    head = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": i} for i in range(categories)]}
    truth_set, result_set = (COCO({**head, "annotations": entries}) for entries in (labels, results))
    evaluator = COCOeval_faster(truth_set, result_set, "bbox", print_function=log.debug)
    evaluator.params.areaRng, evaluator.params.areaRngLbl = list(size_ranges.values()), list(size_ranges)
    evaluator.params.maxDets = list(max_detections)
    evaluator.separate_eval = True  # keeps the matches of each image for read_matches
    if images and categories:
        evaluator.evaluate()
    return evaluator


def _labels(
    image: int, truth: GroundTruth, size: Floats, detections: Detections, coco_rules: bool
) -> list[_Annotation]:
    """Return the ground truth as COCO annotations; an ignore region is repeated for each detected category."""
    own = (truth.category != EVERY_CATEGORY) & (coco_rules | ~truth.ignore)
    entries = _annotations(image, truth.xyxy[own], truth.category[own], size[own])
    for entry, counted in zip(entries, truth.counted[own].tolist(), strict=True):
        entry["iscrowd"] = int(not counted)
    for region in [] if coco_rules else np.flatnonzero(truth.ignore):
        for category in np.unique(detections.category):
            entries += _annotations(image, truth.xyxy[[region]], category[None], size[[region]], crowd=1)
    return entries


def _annotations(
    image: int, xyxy: Boxes, category: NDArray[np.int64], size: Floats, score: Floats | None = None, crowd: int = 0
) -> list[_Annotation]:
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).tolist()
    scores = [0.0] * len(xywh) if score is None else score.tolist()
    return [
        {"image_id": image, "category_id": c, "bbox": box, "area": a, "iscrowd": crowd, "score": s}
        for box, c, a, s in zip(xywh, category.tolist(), size.tolist(), scores, strict=True)
    ]


def by_area(images: Iterable[tuple[GroundTruth, Detections, float]]) -> Iterator[SizedImage]:
    """Yield each image with the areas of its boxes, at so many network pixels per source pixel."""
    for truth, detections, scale in images:
        yield SizedImage(truth, truth.area * scale**2, detections, boxes.area(detections.xyxy) * scale**2)


def by_bucket(images: Iterable[tuple[GroundTruth, Detections, float]]) -> Iterator[SizedImage]:
    """Yield each image with the bucket numbers of its boxes, at so many network pixels per source pixel."""
    for truth, detections, scale in images:
        bucket_of_truth, bucket_of_detection = (
            boxes.bucket(boxes.side_length(xyxy) * scale).astype(np.float64) for xyxy in (truth.xyxy, detections.xyxy)
        )
        yield SizedImage(truth, bucket_of_truth, detections, bucket_of_detection)


@dataclass(frozen=True, eq=False)
class CellMatches:
    """The detections of one image, category and size range, matched with its objects."""

    score: Floats  # [D], best first
    hit: NDArray[np.bool_]  # [IoU threshold, D]
    neutral: NDArray[np.bool_]  # [IoU threshold, D]: on an ignored object, or of another size
    objects: int  # that count for recall


def read_matches(evaluator: Any) -> dict[tuple[int, int, int], CellMatches]:
    """Return the matches by (category, size range, image); a cell without objects and detections is left out.

    The C++ objects give their content only to pickle, so it is read from their pickled state.
    """
    cells = getattr(evaluator, "_evalImgs_cpp", [])
    params = evaluator.params
    images, sizes, thresholds = len(params.imgIds), len(params.areaRng), len(params.iouThrs)
    matches = {}
    for number, cell in enumerate(cells):
        detection_matches, _, scores, truth_ignored, detection_ignored, *_ = cell.__getstate__()
        if not scores and not truth_ignored:
            continue
        shape = (thresholds, len(scores))
        neutral = np.array(detection_ignored, dtype=np.bool_).reshape(shape)
        hit = (np.array(detection_matches, dtype=np.int64).reshape(shape) > 0) & ~neutral
        place = (number // (sizes * images), number // images % sizes, number % images)
        matches[place] = CellMatches(np.array(scores, dtype=np.float64), hit, neutral, truth_ignored.count(False))
    return matches
