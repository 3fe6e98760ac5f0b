"""Matches of every size range, category and threshold compared with pycocotools, bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from etl import boxes
from tests.train.metrics.test_summary import random_image
from train.detections import Detections, GroundTruth
from train.metrics import coco, precision
from train.metrics.matching import RangeMatches, match_images
from train.metrics.sized_boxes import BUCKET_RANGES, COCO_AREAS, ScaledImage

CATEGORIES = 3
BUCKET_NUMBERS = {name: (number, number) for number, name in enumerate(BUCKET_RANGES)}


class Expected(NamedTuple):
    """pycocotools' matches of one category and size range, and what it accumulates from them."""

    hit: NDArray[np.bool_]  # [threshold, D]
    neutral: NDArray[np.bool_]
    objects: list[int]  # by image
    precision: NDArray[np.float64]  # [threshold, recall]
    recall: NDArray[np.float64]  # [threshold, detections counted]


def crowded_image(rng: np.random.Generator, pixel: float = 1.0) -> ScaledImage:
    """Boxes on a grid so close together that many overlaps and scores are equal."""

    def some(number: int) -> NDArray[np.float64]:
        low = rng.integers(0, 5, (number, 2))
        side = rng.choice([6, 7, 8, 9, 10], (number, 2)) * rng.choice([1, 2, 4], (number, 1))
        return np.concatenate([low, low + side], axis=1) * pixel

    rows, guesses = some(int(rng.integers(0, 25))), some(int(rng.integers(0, 60)))
    ignore, difficult = rng.random((2, len(rows))) < 0.15
    kinds, guessed = (rng.integers(0, CATEGORIES, len(part)) for part in (rows, guesses))
    area = boxes.area(rows) * rng.choice([0.5, 1.0], len(rows))
    truth = GroundTruth(rows, kinds, area, ignore, difficult & ~ignore)
    score = rng.integers(1, 5, len(guesses)) / 4
    return ScaledImage(truth, Detections(guesses, score, guessed, np.zeros((len(guesses), 4))), 1.0)


def rounded_image(rng: np.random.Generator) -> ScaledImage:
    """Overlaps that are equal but for the rounding of coordinates."""
    return crowded_image(rng, 1.1)


def sparse_image(rng: np.random.Generator) -> ScaledImage:
    return ScaledImage(*random_image(rng), 1.0)


def annotations(images: list[ScaledImage], by_bucket: bool) -> tuple[list[Any], list[Any]]:
    """Ground truth and detections in COCO's format; the area may be the number of the size bucket."""
    labels, results = [], []
    for number, (truth, found, _) in enumerate(images):
        for entries, part, area in ((labels, truth, truth.area), (results, found, boxes.area(found.xyxy))):
            area = boxes.bucket(boxes.side_length(part.xyxy)) if by_bucket else area
            for row, (box, category) in enumerate(zip(part.xyxy, part.category.tolist(), strict=True)):
                bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                entry = {"image_id": number, "category_id": category, "bbox": bbox, "area": float(area[row])}
                entries.append({**entry, "id": len(entries) + 1, "iscrowd": 0})
                if entries is labels:
                    entries[-1]["iscrowd"] = int(not truth.counted[row])
                else:
                    entries[-1]["score"] = float(found.score[row])
    return labels, results


def by_pycocotools(
    images: list[ScaledImage], ranges: dict[str, Any], max_detections: list[int], by_bucket: bool
) -> dict[tuple[str, int], Expected]:
    """Return the matches by size range and category."""
    labels, results = annotations(images, by_bucket)
    head = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": i} for i in range(CATEGORIES)]}
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for entries in (labels, results):
            sets.append(COCO())
            sets[-1].dataset = {**head, "annotations": entries, "info": {}}
            sets[-1].createIndex()
        run = COCOeval(*sets, "bbox")
        run.params.areaRng, run.params.areaRngLbl = [list(ends) for ends in ranges.values()], list(ranges)
        run.params.maxDets = max_detections
        run.evaluate()
        run.accumulate()
    answer = {}
    for category in range(CATEGORIES):
        for place, size in enumerate(ranges):
            start = (category * len(ranges) + place) * len(images)
            cells = run.evalImgs[start : start + len(images)]
            known = [cell for cell in cells if cell is not None]
            none: NDArray[np.float64] = np.zeros((10, 0))
            order = np.argsort([-score for cell in known for score in cell["dtScores"]], kind="mergesort")
            matched = np.concatenate([none, *(cell["dtMatches"] for cell in known)], axis=1)[:, order] > 0
            neutral = np.concatenate([none, *(cell["dtIgnore"] for cell in known)], axis=1)[:, order] > 0
            used = ~neutral.all(axis=0)
            answer[size, category] = Expected(
                (matched & ~neutral)[:, used],
                neutral[:, used],
                [0 if cell is None else int((~cell["gtIgnore"].astype(bool)).sum()) for cell in cells],
                run.eval["precision"][:, :, category, place, -1],
                run.eval["recall"][:, category, place],
            )
    return answer


def check(ours: RangeMatches, expected: Expected, max_detections: list[int]) -> None:
    np.testing.assert_array_equal(ours.hit, expected.hit)
    np.testing.assert_array_equal(ours.neutral, expected.neutral)
    assert ours.objects.tolist() == expected.objects
    if not sum(expected.objects):
        return
    once = np.ones((1, len(expected.objects)), dtype=np.int64)
    mean = precision.average_precision(ours, once)[0]
    np.testing.assert_allclose(mean, expected.precision.mean(axis=1), rtol=0, atol=1e-14)
    recalls = [precision.recall(ours, most) for most in max_detections]
    np.testing.assert_array_equal(np.transpose(recalls), expected.recall)


@pytest.mark.parametrize("make_image", [crowded_image, rounded_image, sparse_image])
@pytest.mark.parametrize("max_detections", [[1, 3], [1, 10, 100], [2, 1000]])
@pytest.mark.parametrize("seed", range(3))
def test_every_match_is_that_of_pycocotools(make_image: Any, max_detections: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [make_image(rng) for _ in range(30)]
    most = max_detections[-1]
    matched = match_images(images, CATEGORIES, coco.IOU, max_detections=most, coco_rules=True)
    for ranges, by_bucket in ((COCO_AREAS, False), (BUCKET_NUMBERS, True)):
        for (size, category), expected in by_pycocotools(images, ranges, max_detections, by_bucket).items():
            check(matched.ranges[size][category], expected, max_detections)


def count_candidates(images: list[ScaledImage]) -> int:
    """Return how many pairs are compared."""
    compared = []

    def closeness(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        compared.append(len(a))
        return coco.iou(a, b)

    match_images(images, CATEGORIES, dataclasses.replace(coco.IOU, closeness=closeness))
    return sum(compared)


def test_a_detection_far_outside_the_images_adds_no_candidates() -> None:
    rng = np.random.default_rng(0)
    images = [sparse_image(rng) for _ in range(10)]
    expected = count_candidates(images)
    images[0].detections.xyxy[0] = [1e150, 1e150, 2e150, 2e150]
    assert 0 < count_candidates(images) <= expected
