"""Anchors: recall first, never below the floor, the same for the same boxes."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl.stages.anchors import fit, frameworks, search

STRIDES = (8, 16, 32)


def by_hand(fitted_anchors: list[tuple[float, float]], boxes: np.ndarray) -> tuple[float, float, float]:
    """Best possible recall, anchors past the threshold and fitness, in plain loops."""
    reached = past = total = 0.0
    for w, h in boxes:
        agreements = [min(w / a, a / w, h / b, b / h) for a, b in fitted_anchors]
        past += sum(agreement > 0.25 for agreement in agreements)
        reached += max(agreements) > 0.25
        total += max(agreements) if max(agreements) > 0.25 else 0.0
    return reached / len(boxes), past / len(boxes), total / len(boxes)


def flat(fitted: fit.AnchorFit) -> list[tuple[float, float]]:
    return [anchor for level in fitted.anchors for anchor in level]


def boxes_like_cars(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal([3.2, 3.0], [0.6, 0.55], size=(count, 2)))


def test_the_figures_are_those_of_plain_loops_over_every_box_and_anchor() -> None:
    wh = boxes_like_cars(300)
    fitted = fit.fit_anchors(wh, image_size=640, strides=STRIDES, per_level=3)
    assert (fitted.bpr, fitted.aat, fitted.fitness) == pytest.approx(by_hand(flat(fitted), wh), abs=1e-12)
    assert fitted.boxes == 300


def test_a_weight_counts_as_that_many_equal_boxes() -> None:
    wh = boxes_like_cars(50)
    weights = np.arange(1, 51)
    one = fit.fit_anchors(wh, weights, image_size=640, strides=STRIDES, per_level=2, seed=3)
    other = fit.fit_anchors(np.repeat(wh, weights, axis=0), image_size=640, strides=STRIDES, per_level=2, seed=3)
    assert one == other


def test_the_order_of_the_boxes_changes_nothing() -> None:
    wh = boxes_like_cars(400)
    one = fit.fit_anchors(wh, image_size=640, strides=STRIDES, per_level=3)
    assert one == fit.fit_anchors(wh[::-1], image_size=640, strides=STRIDES, per_level=3)


sizes = st.floats(0.5, 600, allow_nan=False)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=40), st.integers(0, 9), st.sampled_from([1, 3]))
def test_any_boxes_give_a_recall_between_0_and_1_and_anchors_above_half_their_stride(
    wh: list[tuple[float, float]], seed: int, per_level: int
) -> None:
    fitted = fit.fit_anchors(wh, image_size=640, strides=STRIDES, per_level=per_level, seed=seed)
    assert fitted.bpr is not None and fitted.fitness is not None
    assert 0 <= fitted.fitness <= fitted.bpr <= 1
    for stride, level in zip(STRIDES, fitted.anchors, strict=True):
        assert len(level) == per_level
        assert all(stride / 2 <= side <= 640 for anchor in level for side in anchor)
    areas = [w * h for w, h in flat(fitted)]
    assert areas == sorted(areas)
    assert fitted == fit.fit_anchors(wh, image_size=640, strides=STRIDES, per_level=per_level, seed=seed)


def test_recall_comes_before_fit_so_a_few_far_off_boxes_are_reached() -> None:
    wh = np.concatenate([np.full((500, 2), 20.0), [[300.0, 300.0], [12.0, 160.0], [160.0, 12.0]]])
    assert fit.fit_anchors(wh, image_size=640, strides=STRIDES, per_level=3).bpr == 1.0


def test_auto_takes_the_fewest_anchors_to_which_one_more_adds_less_than_a_thousandth() -> None:
    fitted = fit.fit_anchors(boxes_like_cars(500), image_size=640, strides=STRIDES)
    numbers = [number for number, _ in fitted.bpr_curve]
    assert numbers == list(range(1, len(numbers) + 1))
    chosen = len(fitted.anchors[0])
    gains = [more - bpr for (_, bpr), (_, more) in zip(fitted.bpr_curve, fitted.bpr_curve[1:], strict=False)]
    assert all(gain >= 0.001 for gain in gains[: chosen - 1])
    assert chosen == fit.MOST_PER_LEVEL or gains[chosen - 1] < 0.001


def test_without_boxes_the_anchors_are_guesses_and_say_so() -> None:
    fitted = fit.fit_anchors(np.empty((0, 2)), image_size=640, strides=STRIDES, per_level=2)
    assert not fitted.fitted and fitted.boxes == 0 and fitted.bpr is None
    assert len(flat(fitted)) == 6
    assert "no boxes" in frameworks.format_log(fit.to_json(fitted), fit.RATIO)
    assert fit.to_json(fitted)["bpr"] is None


def test_boxes_without_area_or_weight_count_for_nothing() -> None:
    wh = [(0.0, 5.0), (7.0, -1.0), (float("nan"), 3.0), (10.0, 10.0), (600.0, 600.0)]
    fitted = fit.fit_anchors(wh, [1, 1, 1, 1, 0], image_size=640, strides=STRIDES, per_level=1)
    assert fitted.boxes == 1 and fitted.bpr == 1.0


@pytest.mark.parametrize("count", [1, 200])
def test_one_box_or_many_identical_ones_fit_perfectly(count: int) -> None:
    fitted = fit.fit_anchors(np.full((count, 2), [40.0, 24.0]), image_size=640, strides=STRIDES, per_level=3)
    assert fitted.bpr == 1.0
    assert fitted.fitness == pytest.approx(1.0, abs=1e-3)


def test_the_json_keeps_no_time_and_the_log_form_has_the_known_figures() -> None:
    fitted = fit.fit_anchors(boxes_like_cars(100), image_size=640, strides=STRIDES, per_level=3)
    assert fitted.seconds > 0
    written = json.loads(json.dumps(fit.to_json(fitted)))
    assert "seconds" not in written
    assert {"anchors", "strides", "bpr", "aat", "fitness", "boxes", "image_size"} <= written.keys()
    text = frameworks.format_log(fit.to_json(fitted), fit.RATIO)
    assert "anchors/target" in text and "Best Possible Recall (BPR)" in text and "n=9, img_size=640" in text


def test_refining_ends_no_worse_than_it_began_and_within_the_limits() -> None:
    wh = boxes_like_cars(300, seed=5)
    sizes = search.Sizes(np.log(wh), np.full(300, 1 / 300), np.log(4))
    limits = search.Limits(np.log(np.repeat([4.0, 8.0, 16.0], 3)), np.log(640))
    first = search.clamp_anchors(np.log(wh[None, :9]), limits)
    last = search.refine_anchors(sizes, limits, first[0], np.random.default_rng(2))
    assert search.score_anchors(sizes, last[None]) > search.score_anchors(sizes, first)
    assert (last >= limits.floors[:, None]).all() and (last <= limits.ceiling).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 2000), st.floats(0.1, 2000)), min_size=9, max_size=9))
def test_settled_anchors_are_by_area_and_within_their_limits(wh: list[tuple[float, float]]) -> None:
    limits = search.Limits(np.log(np.repeat([4.0, 8.0, 16.0], 3)), np.log(640))
    settled = search.clamp_anchors(np.log([wh]), limits)[0]
    assert (settled >= limits.floors[:, None]).all() and (settled <= limits.ceiling).all()
    assert (np.diff(settled.sum(axis=1)) >= -1e-12).all()


def test_a_hundred_thousand_boxes_are_reached_like_the_few_that_stand_for_them() -> None:
    wh = np.clip(boxes_like_cars(120_000), 2, 640)
    fitted = fit.fit_anchors(wh, image_size=640, strides=(4, 8, 16), per_level=3)
    assert fitted.bpr == 1.0
    assert fitted == fit.fit_anchors(wh[::-1], image_size=640, strides=(4, 8, 16), per_level=3)


def test_recall_is_never_traded_and_the_report_says_what_fitness_alone_would_cost() -> None:
    wh = np.exp(np.random.default_rng(3).normal(3.2, 0.9, (1500, 2))).clip(2, 640)
    fitted = fit.fit_anchors(wh, image_size=640, strides=(4, 4, 4), per_level=3)
    assert fitted.fitness_alone is not None and fitted.bpr is not None and fitted.fitness is not None
    recall, fitness = fitted.fitness_alone
    assert recall < fitted.bpr
    assert fitness > fitted.fitness


def test_very_many_boxes_take_seconds() -> None:
    started = time.process_time()
    fitted = fit.fit_anchors(boxes_like_cars(300_000), image_size=640, strides=STRIDES, per_level=3)
    assert fitted.boxes == 300_000 and fitted.bpr is not None and fitted.bpr > 0.99
    assert time.process_time() - started < 60  # a few on an idle core


def test_preset_anchors_take_the_place_of_the_fit_with_their_own_figures() -> None:
    wh, weights = np.array([(6.0, 7.0), (30.0, 24.0), (900.0, 20.0)]), np.array([2.0, 1.0, 1.0])
    fitted = fit.fit_anchors(wh, weights, image_size=640, strides=(8, 16), per_level=1)
    preset = fit.use_preset(fitted, [[(8.0, 8.0)], [(32.0, 32.0)]], wh, weights)
    assert (preset.anchors, preset.strides, preset.boxes) == ((((8.0, 8.0),), ((32.0, 32.0),)), (8, 16), 4)
    assert preset.bpr == 0.75  # the last box is 28 times as wide as the larger anchor
    assert preset.aat == pytest.approx((2 * 1 + 2) / 4)  # (30, 24) lies within a factor of 4 of both
    assert preset.fitness == pytest.approx((2 * 6 / 8 + 24 / 32) / 4)
    assert preset.in_place_of == fitted and (preset.fitted, fitted.fitted) == (False, True)
    content = fit.to_json(preset)
    assert content["fitted_anchors"]["bpr"] == fitted.bpr and content["bpr"] == 0.75
    assert [row["preset"] for row in content["by_size"]] == [row[3] for row in preset.by_size]


def test_preset_anchors_without_boxes_have_no_figures() -> None:
    fitted = fit.fit_anchors(np.empty((0, 2)), image_size=640, strides=(8,), per_level=1)
    preset = fit.to_json(fit.use_preset(fitted, [[(8.0, 9.0)]], np.empty((0, 2))))
    assert (preset["anchors"], preset["bpr"], preset["boxes"], preset["by_size"]) == ([[[8.0, 9.0]]], None, 0, [])
    log = frameworks.format_log(preset, fit.RATIO)
    assert log.count("no boxes to fit") == 2 and log.count("guesses") == 1
