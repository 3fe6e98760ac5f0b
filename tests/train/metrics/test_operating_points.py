"""Operating points, curves and calibration against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from tests.train.metrics.test_summary import make_detections, make_truth, random_image
from train.metrics import operating_points, summary
from train.metrics.operating_points import Scores

score = st.integers(0, 20).map(lambda value: value / 20)


def matched_image(seed: int) -> operating_points.MatchedImage:
    truth, found = random_image(np.random.default_rng(seed))
    return operating_points.MatchedImage(truth, found, summary.match(truth, found))


def test_the_best_confidence_is_the_one_of_the_best_f1() -> None:
    truth = make_truth([[0, 0, 10, 10], [50, 0, 60, 10], [90, 0, 100, 10]])
    found = make_detections(
        [[0, 0, 10, 10], [50, 0, 60, 10], [200, 0, 210, 10], [90, 0, 100, 10]], [0.9, 0.8, 0.7, 0.2]
    )
    matched = operating_points.MatchedImage(truth, found, summary.match(truth, found))
    best = operating_points.best_f1(Scores.of([matched]))
    assert best.to_dict() == {"confidence": 0.2, "precision": 0.75, "recall": 1.0, "F1": pytest.approx(6 / 7)}
    empty = make_detections([], [])
    unmatched = operating_points.MatchedImage(truth, empty, summary.match(truth, empty))
    assert operating_points.best_f1(Scores.of([unmatched])).recall == 0.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(score, st.booleans()), max_size=30), st.integers(1, 40))
def test_curves_and_best_points_equal_plain_counting(rows: list[tuple[float, bool]], objects: int) -> None:
    rows = sorted(rows, reverse=True)
    scores = Scores(np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=bool), objects)
    found = operating_points.confidence_curve(scores)
    assert found is not None
    for at, precision, recall, f1 in zip(found.confidence, found.precision, found.recall, found.F1, strict=True):
        kept = [hit for value, hit in rows if value >= at]
        assert precision == pytest.approx(sum(kept) / len(kept) if kept else 1.0, abs=1e-4)
        assert recall == pytest.approx(sum(kept) / objects, abs=1e-4)
        assert f1 == pytest.approx(2 * sum(kept) / (len(kept) + objects), abs=1e-4)
    best = operating_points.best_f1(scores)
    if rows:
        assert (
            pytest.approx(
                max(
                    2 * sum(h for v, h in rows if v >= at) / (sum(v >= at for v, _ in rows) + objects) for at, _ in rows
                )
            )
            == best.F1
        )


def test_operating_points_are_of_each_category_alone() -> None:
    images = [matched_image(seed) for seed in range(6)]
    points = operating_points.operating_points(images, ("a", "b", "c"))
    for number, name in enumerate(("a", "b", "c")):
        mine = []
        for truth, found, _ in images:
            own = found.take(found.category == number)
            kept = truth.category == number
            part = make_truth(truth.xyxy[kept].tolist(), truth.category[kept].tolist(), ignore=truth.ignore[kept])
            mine.append(operating_points.MatchedImage(part, own, summary.match(part, own)))
        assert pytest.approx(operating_points.best_f1(Scores.of(mine)).F1, abs=0.05) == points[name].F1
        assert 0 < points[name].recall <= 1


def test_a_score_that_is_the_share_of_hits_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    value = np.sort(rng.random(200_000))[::-1]
    right = operating_points.measure_calibration(Scores(value, rng.random(len(value)) < value, 1))
    assert right.error < 0.01
    assert [row.right for row in right.bins] == pytest.approx([row.score for row in right.bins], abs=0.02)
    sure = operating_points.measure_calibration(Scores(value, rng.random(len(value)) < value / 2, 1))
    assert sure.error == pytest.approx(0.25, abs=0.01)
    nothing = operating_points.measure_calibration(Scores(np.zeros(0), np.zeros(0, dtype=bool), 0))
    confident = {"threshold": 0.1, "detections": 0, "error": None, "score": None, "right": None}
    assert nothing.to_dict() == {"error": None, "bins": [None] * 10, "confident": confident}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(score, st.booleans()), min_size=1, max_size=40))
def test_the_confident_calibration_leaves_out_low_scores(rows: list[tuple[float, bool]]) -> None:
    rows = sorted(rows, reverse=True)
    scores = Scores(np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=bool), 1)
    found = operating_points.measure_calibration(scores).confident
    kept = [(value, hit) for value, hit in rows if value >= 0.1]
    assert found.detections == len(kept)
    if kept:
        error = 0.0
        for tenth in range(10):
            inside = [(value, hit) for value, hit in kept if tenth == min(int(value * 10), 9)]
            error += abs(sum(value - hit for value, hit in inside)) / len(kept)
        assert found.error == pytest.approx(error, abs=1e-6)
        assert found.score == pytest.approx(sum(value for value, _ in kept) / len(kept), abs=1e-6)
        assert found.right == pytest.approx(sum(hit for _, hit in kept) / len(kept), abs=1e-6)


def test_many_detections_near_zero_do_not_hide_confident_ones_that_are_wrong() -> None:
    score = np.concatenate([np.full(100, 0.6), np.full(9900, 0.001)])
    hit = np.concatenate([np.arange(100) < 30, np.zeros(9900, dtype=bool)])
    found = operating_points.measure_calibration(Scores(score, hit, 30))
    assert found.error < 0.01
    assert found.confident.error == pytest.approx(0.3)
    assert (found.confident.score, found.confident.right) == (0.6, 0.3)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_curve_of_a_bucket_is_of_its_objects_alone(scale: float) -> None:
    images = [matched_image(seed) for seed in range(6)]
    curves = operating_points.bucket_curves(images, [scale] * 6)
    for bucket, (_, curve) in enumerate(curves.items()):
        rows, objects = [], 0
        for truth, found, matches in images:
            sizes = [np.digitize(boxes.side_length(part.xyxy) * scale, boxes.BUCKET_EDGES) for part in (truth, found)]
            objects += sum(truth.counted & (sizes[0] == bucket))
            for row, owner in enumerate(matches.owner):
                if owner >= 0 and sizes[0][owner] == bucket:
                    rows.append((found.score[row], True))
                elif matches.false_positive[row] and sizes[1][row] == bucket:
                    rows.append((found.score[row], False))
        assert (curve is None) == (objects == 0)
        if curve is not None:
            for at, recall, precision in zip(curve.confidence, curve.recall, curve.precision, strict=True):
                kept = [hit for value, hit in rows if value >= at]
                assert recall == pytest.approx(sum(kept) / objects, abs=1e-4)
                assert precision == pytest.approx(sum(kept) / len(kept) if kept else 1.0, abs=1e-4)
