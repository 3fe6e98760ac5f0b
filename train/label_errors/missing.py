"""Missing labels: detections without a label that are probably objects.

A detection is of a labelled object if their normalised Wasserstein distance (NWD, Wang et al. 2021, arXiv 2110.13389)
reaches what 99 % of the true pairs of that size reach; IoU would leave every second pair of small boxes unmatched. The
others are ranked by the share of correct detections of their size and score on the val images, not by the score itself,
which is higher for large objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import NWD_SCALE
from train.detections import Detections, GroundTruth

_PAIR_QUANTILE = 0.01  # share of the true pairs that may lie below the threshold
_MIN_SAMPLES = 30  # of a size, for a threshold and a curve of its own
_PAIR_DISTANCE = 0.5  # of an object's side: centres further apart are no true pair
_LABEL_DISTANCE = 0.75  # of a detection's side: a label further off is not its label, whatever the threshold
_MAX_THRESHOLD = 0.8
_MIN_PROBABILITY = 0.5  # of a suspect

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Calibration:
    """NWD thresholds and the probability of a score, by size bucket."""

    nwd: Floats  # [buckets], from which a detection is of a labelled object
    scores: Sequence[Floats]  # by bucket, rising
    right: Sequence[Floats]  # by bucket, the share of correct detections at each of these scores, rising with them

    def probability(self, size: Integers, score: Floats) -> Floats:
        """Return the probability [N] that detections of these buckets [N] and scores [N] are correct."""
        probability = np.zeros(len(score))
        for bucket in np.unique(size):
            own = size == bucket
            if len(self.scores[bucket]):
                probability[own] = np.interp(score[own], self.scores[bucket], self.right[bucket])
        return probability


class _Samples(NamedTuple):
    """The true pairs and the counted detections of some images."""

    pair_size: Integers  # [P], bucket of the object
    pair_nwd: Floats  # [P]
    size: Integers  # [D], bucket of the detection
    score: Floats  # [D]
    right: Mask  # [D]


def calibrate(images: Iterable[tuple[GroundTruth, Detections]]) -> Calibration:
    """Return the calibration on images whose labels are taken as complete.

    A size with fewer than 30 samples takes those of all sizes together.
    """
    samples = _collect(images)
    thresholds, scores, shares = [], [], []
    for bucket in range(len(boxes.BUCKETS)):
        own = samples.pair_size == bucket
        values = samples.pair_nwd[own] if own.sum() >= _MIN_SAMPLES else samples.pair_nwd
        threshold = float(np.quantile(values, _PAIR_QUANTILE)) if len(values) else _MAX_THRESHOLD
        thresholds.append(min(threshold, _MAX_THRESHOLD))
        own = samples.size == bucket
        own = own if samples.right[own].sum() >= _MIN_SAMPLES else np.ones(len(samples.size), dtype=np.bool_)
        score, right = samples.score[own], samples.right[own]
        order = np.lexsort((~right, score))  # of equal scores the correct ones first: the fit gives them one value
        scores.append(score[order].astype(np.float64))
        shares.append(_fit_rising(right[order].astype(np.float64)))
    return Calibration(np.array(thresholds), scores, shares)


def _collect(images: Iterable[tuple[GroundTruth, Detections]]) -> _Samples:
    none = np.zeros(0)
    parts = [_Samples(none.astype(np.int64), none, none.astype(np.int64), none, none.astype(np.bool_))]
    for truth, detections in images:
        owner, nwd = _pair(truth, detections)
        right = owner >= 0
        counted = right | ~_is_on_ignored(truth, detections)
        parts.append(
            _Samples(
                boxes.bucket(boxes.side_length(truth.xyxy[owner[right]])),
                nwd[right],
                boxes.bucket(boxes.side_length(detections.xyxy))[counted],
                detections.score[counted],
                right[counted],
            )
        )
    return _Samples(*map(np.concatenate, zip(*parts, strict=True)))


def find_suspects(truth: GroundTruth, detections: Detections, calibration: Calibration) -> tuple[Detections, Floats]:
    """Return the detections of one image without a label, and the probability that each is an object [N]."""
    side = boxes.side_length(detections.xyxy)
    size = boxes.bucket(side)
    threshold = np.maximum(calibration.nwd[size], np.exp(-_LABEL_DISTANCE * side / NWD_SCALE))
    nwd = boxes.nwd(detections.xyxy[:, None], truth.xyxy)
    labelled = (nwd >= threshold[:, None]).any(axis=1) if len(truth) else np.zeros(len(detections), np.bool_)
    probability = calibration.probability(size, detections.score)
    kept = ~labelled & ~_is_on_ignored(truth, detections) & (probability >= _MIN_PROBABILITY)
    return detections.take(kept), probability[kept]


def _pair(truth: GroundTruth, detections: Detections) -> tuple[Integers, Floats]:
    """Return the counted object of each detection [D], -1 for none, best scores first, and their NWD [D]."""
    nwd = boxes.nwd(detections.xyxy[:, None], truth.xyxy)
    of_detection, of_truth = ((part.xyxy[:, :2] + part.xyxy[:, 2:]) / 2 for part in (detections, truth))
    distance = np.sqrt(((of_detection[:, None] - of_truth) ** 2).sum(axis=2))
    reach = np.maximum(_PAIR_DISTANCE * boxes.side_length(truth.xyxy), 1.0)
    available = (distance <= reach) & truth.counted & (detections.category[:, None] == truth.category)
    owner, value = np.full(len(detections), -1), np.zeros(len(detections))
    for row in np.argsort(-detections.score, kind="stable"):
        if available[row].any():
            owner[row] = int(np.where(available[row], nwd[row], -1.0).argmax())
            value[row] = nwd[row, owner[row]]
            available[:, owner[row]] = False
    return owner, value


def _is_on_ignored(truth: GroundTruth, detections: Detections) -> Mask:
    """Return which detections lie by half inside an ignore region or a difficult object [D]."""
    ignored = ~truth.counted
    shared = boxes.intersection(detections.xyxy, truth.xyxy[ignored])
    return np.asarray((shared >= 0.5 * np.maximum(boxes.area(detections.xyxy), 1e-9)[:, None]).any(axis=1))


def _fit_rising(values: Floats) -> Floats:
    """Return the rising values with the least squared error (pool adjacent violators, Barlow et al. 1972)."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            total = counts[-2] + counts[-1]
            means[-2] = (means[-2] * counts[-2] + means[-1] * counts[-1]) / total
            counts[-2] = total
            means.pop()
            counts.pop()
    return np.repeat(means, counts) if means else np.zeros(0)
