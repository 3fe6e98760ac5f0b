"""What a score is worth: precision, recall and F1 as the confidence rises, operating points, and calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.detections import Detections, GroundTruth
from train.evaluation.metrics import Matches

_POINTS = 101  # of a curve
_BINS = 10  # of scores, for calibration

MatchedImage = tuple[GroundTruth, Detections, Matches]  # of one image


@dataclass(frozen=True, eq=False)
class Scores:
    """The judged detections of one category or of all, best first, and how many objects there are."""

    score: NDArray[np.float64]  # [D]
    hit: NDArray[np.bool_]  # [D]
    objects: int

    @classmethod
    def of(cls, images: Iterable[MatchedImage], category: int | None = None) -> Scores:
        """Return those of a category, of all where none is given."""
        scores, hits, objects = [np.zeros(0)], [np.zeros(0, dtype=np.bool_)], 0
        for truth, detections, matched in images:
            judged = ~matched.neutral
            counted = truth.counted
            if category is not None:
                judged &= detections.category == category
                counted &= truth.category == category
            scores.append(detections.score[judged])
            hits.append(matched.truth[judged] >= 0)
            objects += int(counted.sum())
        score = np.concatenate(scores)
        order = np.argsort(-score, kind="stable")
        return cls(score[order], np.concatenate(hits)[order], objects)


def best_f1(scores: Scores) -> dict[str, float | None]:
    """Return the confidence with the best F1, and precision, recall and F1 there; None without truth."""
    if not scores.objects or not len(scores.score):
        return {"confidence": None, "precision": None, "recall": 0.0 if scores.objects else None, "F1": None}
    right = np.cumsum(scores.hit)
    f1 = 2 * right / (np.arange(1, len(right) + 1) + scores.objects)
    last = np.flatnonzero(np.append(np.diff(scores.score) != 0, True))  # equal scores stand or fall together
    place = int(last[f1[last].argmax()])
    return {
        "confidence": float(scores.score[place]),
        "precision": float(right[place] / (place + 1)),
        "recall": float(right[place] / scores.objects),
        "F1": float(f1[place]),
    }


def confidence_curve(scores: Scores) -> dict[str, list[float]] | None:
    """Return precision, recall and F1 at confidences 0, 0.01 … 1; precision is 1 where nothing is left."""
    if not scores.objects:
        return None
    confidence = np.arange(_POINTS) / (_POINTS - 1)
    kept = np.searchsorted(-scores.score, -confidence, side="right")  # detections of this score or above
    right = np.append(0, np.cumsum(scores.hit))[kept]
    precision = np.divide(right, kept, out=np.ones(_POINTS), where=kept > 0)
    recall = right / scores.objects
    f1 = 2 * right / (kept + scores.objects)
    rows = {"confidence": confidence, "precision": precision, "recall": recall, "F1": f1}
    return {name: np.round(values, 4).tolist() for name, values in rows.items()}


def measure_calibration(scores: Scores) -> dict[str, Any]:
    """Return, by tenths of the score, detections, their mean score and the share that is right; and the mean gap.

    `error` is the expected calibration error (Guo et al. 1706.04599): the gaps weighed by detections.
    """
    place = np.minimum((scores.score * _BINS).astype(np.int64), _BINS - 1)
    number = np.bincount(place, minlength=_BINS)
    mean = np.bincount(place, scores.score, minlength=_BINS)
    right = np.bincount(place, scores.hit, minlength=_BINS)
    gap = np.abs(mean - right).sum() / len(scores.score) if len(scores.score) else None
    bins = [
        {"detections": int(n), "score": round(float(m / n), 4), "right": round(float(r / n), 4)} if n else None
        for n, m, r in zip(number, mean, right, strict=True)
    ]
    return {"error": None if gap is None else round(float(gap), 6), "bins": bins}


def operating_points(images: Sequence[MatchedImage], categories: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return the best confidence of each category, with what it gives; those without objects have none."""
    return {name: best_f1(Scores.of(images, number)) for number, name in enumerate(categories)}


def confidence_thresholds(
    points: Mapping[str, Mapping[str, float | None]], other: Mapping[str, float | None]
) -> NDArray[np.float64]:
    """Return from which confidence each category [C] counts: its own best, else that of all, else 0."""
    rest = other["confidence"] or 0.0
    return np.array([rest if (own := row["confidence"]) is None else own for row in points.values()], dtype=np.float64)
