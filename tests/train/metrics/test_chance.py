"""Whether a file of detections is read rightly: objects whose best detection is of another category."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etl.boxes import area
from etl.evaluation import FileReading
from tests.etl.test_evaluation import evaluation
from tests.train.metrics.test_summary import random_image
from train.detections import Detections, GroundTruth
from train.evaluation.basis import describe_basis
from train.metrics.chance import compare_with_chance

READING = FileReading(
    images="file names", categories="names", detections=9, judged=9, other_images=0, other_categories=0, unexplained=0
)  # fmt: skip


def naive(images: list[tuple[GroundTruth, Detections]]) -> tuple[int, int]:
    detected = misnamed = 0
    for truth, found in images:
        for label, category in zip(truth.xyxy[truth.counted], truth.category[truth.counted], strict=True):
            best: tuple[float, int] | None = None
            for box, score, kind in zip(found.xyxy, found.score, found.category, strict=True):
                sides = np.minimum(label[2:], box[2:]) - np.maximum(label[:2], box[:2])
                shared = float(np.prod(np.maximum(sides, 0)))
                both = float(area(label[None])[0] + area(box[None])[0]) - shared
                if both and shared / both >= 0.5 and (best is None or score > best[0]):
                    best = (float(score), int(kind))
            detected += best is not None
            misnamed += best is not None and best[1] != category
    return detected, misnamed


@pytest.mark.parametrize("seed", range(5))
def test_objects_whose_best_detection_is_of_another_category_are_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(12)]
    images = [
        (truth, replace(found, score=rng.random(len(found)), category=found.category ^ (rng.random(len(found)) < 0.3)))
        for truth, found in images
    ]
    reading = compare_with_chance(READING, [truth for truth, _ in images], [found for _, found in images])
    assert (reading.detected_objects, reading.misnamed_objects) == naive(images)
    assert 0 < reading.misnamed_objects < reading.detected_objects


@pytest.mark.parametrize(
    ("detected", "misnamed", "said"), [(20, 11, True), (20, 10, False), (19, 19, False), (900, 812, True)]
)
def test_exchanged_categories_are_suspicious_from_twenty_objects(detected: int, misnamed: int, said: bool) -> None:
    reading = READING.model_copy(update={"detected_objects": detected, "misnamed_objects": misnamed})
    text = " ".join(describe_basis(evaluation(detections="file.json").model_copy(update={"reading": reading})))
    sentence = (
        f"Suspicious: of {misnamed} of {detected} detected objects the detection with the highest score is of another "
        "category."
    )
    assert (sentence in text) == said
    assert ("Suspicious" in text) == said
