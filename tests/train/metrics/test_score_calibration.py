"""Calibrated scores rise with the scores and are the share of correct detections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from train.metrics.score_calibration import fit_calibration


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_points_rise_strictly_and_stay_within_0_and_1(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.4, 2.0, number)
    points = np.array(fit_calibration(scores, rng.random(number) < scores))
    assert (points[0, 0], points[-1, 0]) == (0.0, 1.0)
    assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) >= 0).all()
    assert points[:, 1].min() >= 0 and points[:, 1].max() <= 1


def test_a_pass_that_is_right_half_as_often_as_it_says_is_halved() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 40_000)
    points = np.array(fit_calibration(scores, rng.random(len(scores)) < scores / 2))
    at = np.linspace(0.1, 0.9, 9)
    assert np.interp(at, *points.T) == pytest.approx(at / 2, abs=0.05)


def test_nothing_is_fitted_to_no_detection() -> None:
    assert fit_calibration(np.zeros(0), np.zeros(0, dtype=np.bool_)) == ()
