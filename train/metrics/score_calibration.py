"""Monotone calibration of the scores of a pass: the share of its detections of a score that match an object.

Isotonic regression by pool adjacent violators (Ayer et al. 1955; Zadrozny and Elkan 2002), as points between which
scores are interpolated. A small share of the score itself keeps the order of detections whose share is equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.metrics.sized_boxes import Mask

Points = tuple[tuple[float, float], ...]
_OWN = 0.01  # share of the score itself
_POINTS = 20


def fit_calibration(scores: NDArray[np.float64], correct: Mask) -> Points:
    """Return rising points (score, calibrated score) from 0 to 1; empty without detections."""
    if not len(scores):
        return ()
    order = np.argsort(scores, kind="stable")
    groups = np.array_split(order, min(len(order), 10 * _POINTS))
    blocks: list[list[float]] = []  # detections, sum of scores, correct ones
    for group in groups:
        blocks.append([len(group), float(scores[group].sum()), float(correct[group].sum())])
        while len(blocks) > 1 and blocks[-2][2] * blocks[-1][0] >= blocks[-1][2] * blocks[-2][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    x = np.array([total / number for number, total, _ in blocks])
    y = np.array([hits / number for number, _, hits in blocks])
    if len(x) > _POINTS:
        chosen = np.unique(np.linspace(0, len(x) - 1, _POINTS).round().astype(np.int64))
        x, y = x[chosen], y[chosen]
    x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [y[-1]]])
    kept = np.concatenate([[True], np.diff(x) > 0])
    blended = (1 - _OWN) * y + _OWN * x
    return tuple((round(float(a), 6), round(float(b), 6)) for a, b in zip(x[kept], blended[kept], strict=True))
