"""COCO's evaluator, fed with our truth and detections: which detection finds which object, by category and size.

faster-coco-eval does the matching; ignore regions, difficult objects and sizes by bucket are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from train.detections import EVERY_CATEGORY, Detections, GroundTruth

log = logging.getLogger(__name__)
THRESHOLDS = 10  # of IoU, .5 to .95
COCO_MAX_DETECTIONS = 100  # detections per image and category, what everyone else counts
COCO_SIZES = {"all": [0.0, 1e10], "small": [0.0, 32.0**2], "medium": [32.0**2, 96.0**2], "large": [96.0**2, 1e10]}
BUCKET_SIZES = {name: [float(i), float(i)] for i, name in enumerate(boxes.BUCKETS)}  # ranges of the bucket's number
Floats = NDArray[np.float64]
SizedImage = tuple["GroundTruth", Floats, Detections, Floats]  # truth, its size, detections, their size


def run_evaluator(
    rows: Iterable[SizedImage],
    images: int,
    categories: int,
    sizes: Mapping[str, list[float]],
    counted: Sequence[int],
    comparable: bool,
) -> Any:
    """Return COCO's evaluation with every image matched, to be accumulated or read image by image."""
    from faster_coco_eval import COCO, COCOeval_faster

    labels: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (truth, truth_size, found, found_size) in enumerate(rows):
        labels += _labels(image, truth, truth_size, found, comparable)
        results += _annotations(image, found.xyxy, found.category, found_size, found.score)
    for entries in (labels, results):
        for number, entry in enumerate(entries, start=1):  # from 1: COCO takes 0 for "no match"
            entry["id"] = number
    head = {"images": [{"id": i} for i in range(images)], "categories": [{"id": i} for i in range(categories)]}
    truth_set, result_set = (COCO({**head, "annotations": entries}) for entries in (labels, results))
    run = COCOeval_faster(truth_set, result_set, "bbox", print_function=log.debug)
    run.params.areaRng, run.params.areaRngLbl = list(sizes.values()), list(sizes)
    run.params.maxDets = list(counted)
    run.separate_eval = True  # what it found in each image stays there to be read
    if images and categories:
        run.evaluate()
    return run


def _labels(
    image: int, truth: GroundTruth, size: NDArray[np.float64], found: Detections, comparable: bool
) -> list[dict[str, Any]]:
    """Return the truth as COCO annotations; an ignore region stands once for each category detected in the image."""
    own = (truth.category != EVERY_CATEGORY) & (comparable | ~truth.ignore)
    entries = _annotations(image, truth.xyxy[own], truth.category[own], size[own])
    for entry, counted in zip(entries, truth.counted[own].tolist(), strict=True):
        entry["iscrowd"] = int(not counted)
    for region in [] if comparable else np.flatnonzero(truth.ignore):
        for category in np.unique(found.category):
            entries += _annotations(image, truth.xyxy[[region]], category[None], size[[region]], crowd=1)
    return entries


def _annotations(
    image: int,
    xyxy: Boxes,
    category: NDArray[np.int64],
    size: NDArray[np.float64],
    score: NDArray[np.float64] | None = None,
    crowd: int = 0,
) -> list[dict[str, Any]]:
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).tolist()
    scores = [0.0] * len(xywh) if score is None else score.tolist()
    return [
        {"image_id": image, "category_id": c, "bbox": box, "area": a, "iscrowd": crowd, "score": s}
        for box, c, a, s in zip(xywh, category.tolist(), size.tolist(), scores, strict=True)
    ]


def by_area(
    images: Iterable[tuple[GroundTruth, Detections, float]],
) -> Iterator[SizedImage]:
    """Yield truth and detections with their areas, at so many network pixels per source pixel."""
    for truth, found, scale in images:
        yield truth, truth.area * scale**2, found, boxes.area(found.xyxy) * scale**2


def by_bucket(
    images: Iterable[tuple[GroundTruth, Detections, float]],
) -> Iterator[SizedImage]:
    """Yield truth and detections with the numbers of their size buckets."""
    for truth, found, scale in images:
        numbers = [boxes.bucket(boxes.side_length(xyxy) * scale) for xyxy in (truth.xyxy, found.xyxy)]
        yield truth, numbers[0].astype(np.float64), found, numbers[1].astype(np.float64)


@dataclass(frozen=True, eq=False)
class CellMatches:
    """What was found in one image of one category and range of sizes."""

    score: Floats  # [D], best first
    hit: NDArray[np.bool_]  # [IoU threshold, D]
    neutral: NDArray[np.bool_]  # [IoU threshold, D]: on something ignored, or of another size
    truths: int  # objects that must be found


def read_matches(run: Any) -> dict[tuple[int, int, int], CellMatches]:
    """Return what an evaluation found, by category, range of sizes and image; nothing where there is nothing.

    The C++ objects say what they hold only to pickle, which is how it is read here.
    """
    cells = getattr(run, "_evalImgs_cpp", [])
    images, sizes, thresholds = len(run.params.imgIds), len(run.params.areaRng), len(run.params.iouThrs)
    found = {}
    for number, cell in enumerate(cells):
        detection_matches, _, scores, truth_ignored, detection_ignored, *_ = cell.__getstate__()
        if not scores and not truth_ignored:
            continue
        shape = (thresholds, len(scores))
        neutral = np.array(detection_ignored, dtype=np.bool_).reshape(shape)
        hit = (np.array(detection_matches, dtype=np.int64).reshape(shape) > 0) & ~neutral
        place = (number // (sizes * images), number // images % sizes, number % images)
        found[place] = CellMatches(np.array(scores, dtype=np.float64), hit, neutral, truth_ignored.count(False))
    return found
