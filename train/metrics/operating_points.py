"""Confidence thresholds: precision, recall and F1 at each, the best F1, and the calibration of scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.diagnosis import ConfidentCalibration
from etl.evaluation import Calibration, CalibrationBin, ConfidenceCurve, OperatingPoint
from train.detections import DEFAULT_CONFIDENCE, Detections, GroundTruth
from train.metrics.summary import Matches

_POINTS = 101  # of a curve
_BINS = 10  # of scores, for calibration
CONFIDENT = 0.1  # the score from which `Calibration.confident` counts detections

Thresholds = NDArray[np.float64]  # [C], the confidence threshold of each category


class MatchedImage(NamedTuple):
    """One image with its detections matched."""

    truth: GroundTruth
    detections: Detections
    matches: Matches


@dataclass(frozen=True, eq=False)
class Scores:
    """The detections of one category or of all, best score first, without neutral ones, and the number of objects."""

    score: NDArray[np.float64]  # [D]
    hit: NDArray[np.bool_]  # [D]
    objects: int

    @classmethod
    def of(cls, images: Iterable[MatchedImage], category: int | None = None) -> Scores:
        """Return the scores of one category, or of all without one."""
        scores, hits, objects = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)], 0
        for truth, detections, matches in images:
            kept = ~matches.neutral
            counted = truth.counted
            if category is not None:
                kept &= detections.category == category
                counted &= truth.category == category
            scores.append(detections.score[kept])
            hits.append(matches.owner[kept] >= 0)
            objects += int(counted.sum())
        score = np.concatenate(scores)
        order = np.argsort(-score, kind="stable")
        return cls(score[order], np.concatenate(hits)[order], objects)


def best_f1(scores: Scores) -> OperatingPoint:
    """Return the confidence threshold of the highest F1 = 2 P R / (P + R), and the values there.

    Without objects or detections the threshold is None; recall is then 0 if there are objects.
    """
    if not scores.objects or not len(scores.score):
        recall = 0.0 if scores.objects else None
        return OperatingPoint(confidence=None, precision=None, recall=recall, F1=None)
    hits = np.cumsum(scores.hit)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + scores.objects)
    last = np.flatnonzero(np.append(np.diff(scores.score) != 0, True))  # a threshold keeps all of equal scores or none
    place = int(last[f1[last].argmax()])
    return OperatingPoint(
        confidence=float(scores.score[place]),
        precision=float(hits[place] / (place + 1)),
        recall=float(hits[place] / scores.objects),
        F1=float(f1[place]),
    )


def confidence_curve(scores: Scores) -> ConfidenceCurve | None:
    """Return precision, recall and F1 at thresholds 0, 0.01 ... 1; precision is 1 where no detection is left.

    None without objects.
    """
    if not scores.objects:
        return None
    confidence = np.arange(_POINTS) / (_POINTS - 1)
    kept = np.searchsorted(-scores.score, -confidence, side="right")  # detections of this score or above
    hits = np.append(0, np.cumsum(scores.hit))[kept]
    precision = np.divide(hits, kept, out=np.ones(_POINTS), where=kept > 0)
    recall = hits / scores.objects
    f1 = 2 * hits / (kept + scores.objects)
    return ConfidenceCurve(
        confidence=_rounded(confidence), precision=_rounded(precision), recall=_rounded(recall), F1=_rounded(f1)
    )


def bucket_curves(images: Sequence[MatchedImage], scale: Sequence[float]) -> BySize[ConfidenceCurve | None]:
    """Return the curve of the objects of each size bucket, and of detections on them or, if unmatched, of its size."""
    return BySize.of(confidence_curve(Scores.of(_of_bucket(images, scale, size))) for size in range(len(boxes.BUCKETS)))


def _of_bucket(images: Sequence[MatchedImage], scale: Sequence[float], bucket: int) -> Iterator[MatchedImage]:
    """Yield the images as for one size: other objects are difficult, detections on them or of other sizes neutral."""
    for (truth, detections, matches), per_pixel in zip(images, scale, strict=True):
        of_truth, of_detection = (
            boxes.bucket(boxes.side_length(part.xyxy) * per_pixel) == bucket for part in (truth, detections)
        )
        owner = matches.owner
        own = np.where(owner >= 0, np.append(of_truth, False)[owner], of_detection)
        yield MatchedImage(
            replace(truth, difficult=truth.difficult | ~of_truth),
            detections,
            replace(matches, neutral=matches.neutral | ~own),
        )


def measure_calibration(scores: Scores) -> Calibration:
    """Return mean score and share of hits in ten equal bins of the score, and the expected calibration error.

    Most detections have a score near 0, where any detector is calibrated; `confident` leaves those out.

    ECE = sum_b n_b / n * |mean score of b - share of hits of b| over the bins b (Guo et al. 2017, arXiv 1706.04599).
    """
    number, total, hits = _bin(scores)
    confident = scores.score >= CONFIDENT
    return Calibration(
        error=_calibration_error(scores),
        confident=_measure_confident(Scores(scores.score[confident], scores.hit[confident], scores.objects)),
        bins=tuple(
            CalibrationBin(detections=int(n), score=round(float(t / n), 4), right=round(float(h / n), 4)) if n else None
            for n, t, h in zip(number, total, hits, strict=True)
        ),
    )


def _bin(scores: Scores) -> NDArray[np.float64]:
    """Return the number of detections, the sum of their scores and the hits of each bin [3, bins]."""
    place = np.minimum((scores.score * _BINS).astype(np.int64), _BINS - 1)
    values = np.ones(len(place)), scores.score, scores.hit
    return np.stack([np.bincount(place, value, minlength=_BINS) for value in values]).astype(np.float64)


def _calibration_error(scores: Scores) -> float | None:
    _, total, hits = _bin(scores)
    return round(float(np.abs(total - hits).sum() / len(scores.score)), 6) if len(scores.score) else None


def _measure_confident(scores: Scores) -> ConfidentCalibration:
    number = len(scores.score)
    return ConfidentCalibration(
        threshold=CONFIDENT,
        detections=number,
        error=_calibration_error(scores),
        score=round(float(scores.score.mean()), 6) if number else None,
        right=round(float(scores.hit.mean()), 6) if number else None,
    )


def operating_points(images: Sequence[MatchedImage], categories: Sequence[str]) -> dict[str, OperatingPoint]:
    """Return the operating point with the best F1 of each category."""
    return {name: best_f1(Scores.of(images, number)) for number, name in enumerate(categories)}


def confidence_thresholds(points: Mapping[str, OperatingPoint], overall: OperatingPoint) -> Thresholds:
    """Return the confidence threshold of each category [C]: its own, else that of all categories, else 0."""
    other = overall.confidence or 0.0
    return np.array(
        [other if point.confidence is None else point.confidence for point in points.values()], dtype=np.float64
    )


def known_thresholds(known: Mapping[str, float], categories: Sequence[str]) -> Thresholds:
    """Return the confidence threshold of each category [C] that an earlier evaluation chose, else the default."""
    return np.array([known.get(name, DEFAULT_CONFIDENCE) for name in categories], dtype=np.float64)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(values, 4).tolist())
