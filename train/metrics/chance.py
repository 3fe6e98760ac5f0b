"""Whether the detections of a file lie on objects more often than by chance: if not, the file is read wrongly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl.evaluation import FileReading
from train.detections import Detections, GroundTruth, Index
from train.metrics import coco
from train.metrics.summary import MATCHED_IOU, find_centred

_SHIFTS = 5  # by how many images, at most, the labels are moved on to count chance hits
_DEVIATIONS = 3.0  # standard deviations of a count above its mean
_FOUND_SHARE = 0.5  # of the objects, from which no file is suspicious: still cameras show objects in equal places


def compare_with_chance(
    reading: FileReading, truth: Sequence[GroundTruth], detections: Sequence[Detections]
) -> FileReading:
    """Return the reading with the number of detections on objects of their category, and how many chance explains.

    Chance is counted with the labels of other images; with one image it is 0. Also counted: objects whose best
    detection is of another category.
    """
    objects = sum(int(image.counted.sum()) for image in truth)
    if not (objects and reading.judged):
        return reading
    hits, found = _count_hits(truth, detections)
    shifts = range(1, min(_SHIFTS, len(truth) - 1) + 1)
    moved = [_count_hits([*truth[shift:], *truth[:shift]], detections)[0] for shift in shifts]
    chance = float(np.mean(moved)) if moved else 0.0
    detected, misnamed = _count_misnamed(truth, detections)
    return reading.model_copy(
        update={
            "detected_objects": detected,
            "misnamed_objects": misnamed,
            "on_objects": hits,
            "on_objects_by_chance": round(chance, 4),
            "is_suspicious": hits <= chance + _DEVIATIONS * chance**0.5 and found < _FOUND_SHARE * objects,
        }
    )


def _count_hits(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> tuple[int, int]:
    """Return how many detections lie on an object of their category, and how many objects a detection lies on."""
    pairs = [_hits(*image) for image in zip(truth, detections, strict=True)]
    return sum(len(np.unique(hit)) for hit, _ in pairs), sum(len(np.unique(other)) for _, other in pairs)


def _count_misnamed(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> tuple[int, int]:
    """Return how many objects a detection of any category lies on, and of how many the best one is of another."""
    detected = misnamed = 0
    for image, found in zip(truth, detections, strict=True):
        detection, other = _overlapping(image, found)
        order = np.lexsort((-found.score[detection], other))
        objects, first = np.unique(other[order], return_index=True)
        best = detection[order][first]
        detected += len(objects)
        misnamed += int((found.category[best] != image.category[objects]).sum())
    return detected, misnamed


def _hits(truth: GroundTruth, detections: Detections) -> tuple[Index, Index]:
    """Return the pairs of detections and counted objects of their category that overlap by MATCHED_IOU."""
    detection, other = _overlapping(truth, detections)
    alike = detections.category[detection] == truth.category[other]
    return detection[alike], other[alike]


def _overlapping(truth: GroundTruth, detections: Detections) -> tuple[Index, Index]:
    """Return the pairs of detections and counted objects that overlap by MATCHED_IOU."""
    detection, other = find_centred(truth, detections)
    counted = truth.counted[other]
    detection, other = detection[counted], other[counted]
    close = coco.iou(detections.xyxy[detection], truth.xyxy[other]) >= MATCHED_IOU
    return detection[close], other[close]
