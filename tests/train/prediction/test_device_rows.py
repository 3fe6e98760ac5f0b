"""Suppression on a device keeps exactly the rows that suppression on the host keeps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
from train.prediction import device_rows, rows  # noqa: E402


def crowd(rng: np.random.Generator, number: int, categories: int, levels: int | None = None) -> NDArray[np.float32]:
    """Return a raw output [4 + C, N] of boxes around a few centres; with `levels` many scores and boxes are equal."""
    centres = rng.uniform(0, 640, (max(1, number // 8), 2))
    raw = np.zeros((4 + categories, number), dtype=np.float32)
    raw[:2] = centres[rng.integers(0, len(centres), number)].T + rng.normal(0, 2, (2, number))
    raw[2:4] = rng.uniform(4, 40, (2, number))
    raw[4:] = rng.beta(0.3, 2.0, (categories, number))
    if levels is not None:
        raw[4:] = np.round(raw[4:] * levels) / levels
        raw[:4] = np.round(raw[:4] / 8) * 8
    return raw


def assert_equal_rows(raw: NDArray[np.float32], confidence: float, most: int = rows.PER_VIEW) -> int:
    """Compare each view's rows on both ways; return the number of rows."""
    on_device = device_rows.suppress_on_device(torch.from_numpy(raw), confidence, most)
    on_host = [rows.suppress_raw(view, confidence, most) for view in raw]
    assert len(on_device) == len(on_host)
    for ours, theirs in zip(on_device, on_host, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, theirs)
    return sum(map(len, on_host))


@pytest.mark.parametrize("seed", range(12))
def test_random_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views, number, categories = (int(rng.integers(low, high)) for low, high in ((1, 6), (1, 900), (1, 6)))
    raw = np.stack([crowd(rng, number, categories, levels=8 if seed % 3 == 0 else None) for _ in range(views)])
    assert_equal_rows(raw, float(rng.choice([0.0, 0.001, 0.25, 0.5])))


def test_views_with_and_without_detections() -> None:
    rng = np.random.default_rng(0)
    raw = np.stack([crowd(rng, 400, 3) for _ in range(4)])
    raw[[0, 2], 4:] = 0
    assert assert_equal_rows(raw, 0.25) > 0
    assert assert_equal_rows(raw[[0, 2]], 0.25) == 0


def test_outputs_that_are_not_finite() -> None:
    rng = np.random.default_rng(1)
    raw = np.stack([crowd(rng, 500, 2) for _ in range(3)])
    for value in (np.nan, np.inf, -np.inf):
        raw[rng.integers(0, 3, 40), rng.integers(0, 6, 40), rng.integers(0, 500, 40)] = value
    assert assert_equal_rows(raw, 0.1) > 0


def test_inverted_and_empty_boxes() -> None:
    rng = np.random.default_rng(2)
    raw = crowd(rng, 600, 2)
    raw[2:4] = rng.uniform(-10, 10, (2, 600))
    raw[2, :50] = 0
    assert assert_equal_rows(raw[None], 0.05) > 0


@pytest.mark.parametrize("levels", [None, 50])
def test_more_candidates_than_are_kept_for_suppression(levels: int | None) -> None:
    raw = crowd(np.random.default_rng(3), 3500, 4, levels)
    assert (raw[4:] > 0.001).sum() > rows.CANDIDATES
    assert assert_equal_rows(raw[None], 0.001) == rows.PER_VIEW


@pytest.mark.parametrize("most", [20, 300, 1000])
def test_a_view_has_the_best_rows_up_to_the_limit(most: int) -> None:
    scores = np.random.default_rng(5).permutation(np.linspace(0.1, 0.9, 1600)).astype(np.float32)
    apart = np.zeros((5, 1600), dtype=np.float32)
    apart[0], apart[1], apart[2:4], apart[4] = np.arange(1600) % 40 * 16, np.arange(1600) // 40 * 16, 10, scores
    assert assert_equal_rows(apart[None], 0.05, most) == most
    best = np.sort(scores)[::-1][:most]
    np.testing.assert_array_equal(rows.suppress_raw(apart, 0.05, most)[:, 4], best)
    without_suppression = np.column_stack([apart[:4].T, scores, np.zeros(1600)]).astype(np.float32)
    assert set(rows.above_confidence(without_suppression, 0.05, most)[:, 4]) == set(best.astype(np.float64))


def test_many_categories_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rows, "_SCORES_AT_ONCE", 2 * 80 * 300)
    rng = np.random.default_rng(4)
    assert assert_equal_rows(np.stack([crowd(rng, 300, 80) for _ in range(5)]), 0.5) > 0


def test_one_object_seen_by_every_candidate_and_a_chain_of_boxes() -> None:
    same = np.repeat(np.array([[100, 100, 20, 20, 0.9]], dtype=np.float32).T, 700, axis=1)
    chain = same.copy()  # each box overlaps its neighbours only
    chain[0] += np.arange(700) * 3
    chain[4] = np.linspace(0.9, 0.5, 700)
    assert assert_equal_rows(np.stack([same, chain]), 0.25) == 1 + 300


@pytest.mark.parametrize("confidence", [0.25, 0.1, 0.3, 0.001])
def test_a_score_is_above_the_confidence_as_in_float64(confidence: float) -> None:
    near = np.float32(confidence)
    scores = np.array([np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1))])
    above = scores.astype(np.float64) > confidence
    assert ((scores > rows.float32_limit(confidence)) == above).all()
    raw = np.zeros((5, 3), dtype=np.float32)
    raw[:4] = np.array([[50, 150, 250], [50, 50, 50], [10, 10, 10], [10, 10, 10]])
    raw[4] = scores
    assert assert_equal_rows(raw[None], confidence) == above.sum()
