"""The calibration error that chance alone would make."""

from __future__ import annotations

from math import pi, sqrt

from etl.evaluation import Calibration


def expected_if_calibrated(calibration: Calibration) -> float:
    """Return the expected calibration error of as many confident detections if every score were its probability.

    The hits of a bin of n detections then scatter about n p by sqrt(n p (1 - p)), on average by sqrt(2 / pi) of that.
    """
    confident = calibration.confident
    if confident is None or not confident.detections:
        return 0.0
    first = round(confident.threshold * len(calibration.bins))
    bins = [row for row in calibration.bins[first:] if row is not None]
    scatter = sum(sqrt(row.detections * row.score * (1 - row.score)) for row in bins)
    return sqrt(2 / pi) * scatter / confident.detections
