"""Passes give the boxes of their sizes, lose none of them, and together hold every size."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip("torch")
from etl import boxes
from etl.boxes import Boxes
from etl.config import Evaluate, Merge
from etl.evaluation import InferenceChoice, InferencePass, InferencePlan, MergeSettings, SizeRange
from tests.train.prediction.test_tiled import OBJECTS, PLAN, WH, as_rows, painted, spotter
from train.detections import Detections, concatenate
from train.models.model import Model
from train.prediction import passes, tiled
from train.prediction.merge import merge

NMS = MergeSettings(**Merge().model_dump())
NESTED = MergeSettings(method="nms", metric="ios", threshold=0.7)
NOISE = st.floats(0.82, 1.22)  # of the side that a pass measures; the ratio of two stays below passes.OVERLAP


@st.composite
def ranges(draw: st.DrawFn) -> tuple[list[SizeRange], list[float]]:
    """Size ranges of several passes, and their network pixels per source pixel."""
    number = draw(st.integers(1, 5))
    ratios = draw(st.lists(st.floats(0.05, 4.0), min_size=number, max_size=number))
    lows = draw(st.lists(st.floats(0.0, 300.0), min_size=number, max_size=number))
    spans = draw(st.lists(st.none() | st.floats(1.0, 100.0), min_size=number, max_size=number))
    return [(low, None if span is None else low * span + 1) for low, span in zip(lows, spans, strict=True)], ratios


@given(ranges(), st.floats(0.01, 20_000), st.lists(NOISE, min_size=5, max_size=5))
@settings(max_examples=500, deadline=None)
def test_every_size_is_in_the_range_of_a_pass_however_each_measures_it(
    given_ranges: tuple[list[SizeRange], list[float]], side: float, noise: list[float]
) -> None:
    limits = passes.source_limits(*given_ranges)
    seen = [side * factor for factor, _ in zip(noise, limits, strict=False)]
    assert any(low <= measured <= high for (low, high), measured in zip(limits, seen, strict=True))


@given(ranges())
@settings(max_examples=200, deadline=None)
def test_a_range_is_only_ever_extended(given_ranges: tuple[list[SizeRange], list[float]]) -> None:
    sizes, ratios = given_ranges
    for (low, high), (source_low, source_high), ratio in zip(sizes, passes.source_limits(sizes, ratios), ratios):  # noqa: B905
        assert source_low <= low / ratio
        assert source_high >= (inf if high is None else high / ratio) * (1 - 1e-12)


def test_ranges_that_overlap_enough_stay_as_they_are() -> None:
    assert passes.source_limits([(8, 60), (16, 90)], [1.0, 0.5]) == [(0.0, 60.0), (32.0, inf)]


def squares(corners: list[tuple[float, float, float]], score: list[float], wh: tuple[int, int]) -> Detections:
    xyxy = boxes.as_boxes([(x, y, x + side, y + side) for x, y, side in corners])
    window = np.tile(np.array([0, 0, *wh], dtype=np.float64), (len(xyxy), 1))
    return Detections(xyxy, np.array(score), np.zeros(len(xyxy), dtype=np.int64), window)


@given(st.integers(0, 2**32 - 1), st.floats(2, 60), st.floats(2, 60))
@settings(max_examples=60, deadline=None)
def test_no_detection_inside_the_range_of_its_pass_is_lost(seed: int, low: float, high: float) -> None:
    rng = np.random.default_rng(seed)
    wh = (1280, 1280)
    places = [(x * 128.0, y * 128.0) for x in range(10) for y in range(10)]  # apart: merging has nothing to do
    sides = rng.uniform(1, 120, len(places))
    passes_of_plan = [InferencePass(name="tiles x1", scale=1.0, size_range=(0, high)),
                      InferencePass(name="full_image", scale=None, size_range=(low / 10, None))]  # fmt: skip
    half = len(places) // 2
    merged = [
        (one, squares([(*places[i], sides[i]) for i in part], rng.uniform(0.1, 1, half).tolist(), wh))
        for one, part in zip(passes_of_plan, (range(half), range(half, 2 * half)), strict=True)
    ]
    kept = passes.combine_merged(merged, NESTED, 128, PLAN, wh)
    limits = passes.source_limits([one.size_range for one in passes_of_plan], [1.0, 0.1])
    expected = [
        side for part, (least, most) in zip((sides[:half], sides[half:]), limits, strict=True)
        for side in part if least <= side <= most
    ]  # fmt: skip
    assert sorted(boxes.side_length(kept.xyxy)) == pytest.approx(sorted(expected))


def test_a_piece_of_a_larger_object_counts_though_it_is_below_the_range() -> None:
    wh = (300, 300)
    window = np.array([[0, 0, 128, 300], [0, 0, 300, 300]], dtype=np.float64)
    piece_and_whole = Detections(
        boxes.as_boxes([(118, 10, 128, 20), (118, 40, 128, 50)]), np.array([0.9, 0.8]), np.zeros(2, np.int64), window
    )
    assert passes.select_sizes(piece_and_whole, (20, inf), wh).score.tolist() == [0.9]
    assert len(passes.select_sizes(piece_and_whole, (0, 5), wh)) == 0


def test_calibrated_scores_keep_their_order_within_a_pass() -> None:
    found = squares([(0, 0, 9)] * 4, [0.0, 0.2, 0.5, 1.0], (64, 64))
    points = ((0.0, 0.0), (0.4, 0.1), (1.0, 0.6))
    assert passes.calibrate(found, points).score.tolist() == pytest.approx([0.0, 0.05, 0.1 + 0.5 / 6, 0.6])
    assert passes.calibrate(found, ()) is found


def chosen(model: Model, plan: InferencePlan) -> Model:
    """The model with a plan that an evaluation chose."""
    choice = InferenceChoice(
        name="chosen", chosen=plan, metric="AP", held_out=None, alternatives=(), reason="For the test."
    )
    return replace(model, meta={"inference": choice.to_dict()})  # type: ignore[typeddict-item]


def with_ranges(*of_pass: InferencePass, most: int = 300) -> InferencePlan:
    return InferencePlan(passes=of_pass, merge=NMS, across=NESTED, max_detections=most)


def test_the_chosen_plan_is_the_default_of_prediction_and_runs_its_passes_alone() -> None:
    model = chosen(spotter(), with_ranges(passes.tiles(1.0)))
    tiles_only = tiled.predict(with_config(model), painted(WH, OBJECTS))
    assert len(model.module.sizes) == 9, "the tiles of scale 1"
    expected = tiled.predict_image(spotter(), painted(WH, OBJECTS), "tiled", Evaluate())
    assert as_rows(tiles_only.xyxy, tiles_only.category) == as_rows(expected.xyxy, expected.category)


def with_config(model: Model) -> Model:
    return replace(model, meta={**model.meta, "config": {"evaluate": {}}})


def test_objects_of_every_size_are_found_once_by_passes_with_ranges() -> None:
    fine = InferencePass(name="tiles x1", scale=1.0, size_range=(0, 30))
    coarse = InferencePass(name="tiles x0.5", scale=0.5, size_range=(10, None))
    whole = InferencePass(name="full_image", scale=None, size_range=(40, None))
    model = chosen(spotter(), with_ranges(whole, fine, coarse))
    found = tiled.predict_image(model, painted(WH, OBJECTS), "combined", Evaluate())
    truth = boxes.as_boxes([row[:4] for row in OBJECTS])
    assert len(found) == len(OBJECTS)
    assert (boxes.iou(truth, found.xyxy).max(axis=1) > 0.7).all()


def test_a_pass_gives_no_box_outside_of_its_range() -> None:
    small, large = (3, 5, 11, 13, 0), (60, 60, 180, 180, 1)
    coarse = InferencePass(name="full_image", scale=None, size_range=(40, None))
    fine = InferencePass(name="tiles x1", scale=1.0, size_range=(0, 60))
    found = tiled.predict_image(
        chosen(spotter(), with_ranges(fine, coarse)), painted(WH, [small, large]), "combined", Evaluate()
    )
    assert as_rows(found.xyxy[found.category == 0], found.category[found.category == 0]) == [(3, 5, 11, 13, 0)]
    assert found.window[found.category == 1].tolist() == [[0, 0, 300, 300]], "from the whole image"


def test_a_plan_without_the_base_scale_still_sees_an_image_that_one_tile_holds() -> None:
    model = chosen(spotter(), with_ranges(passes.tiles(0.5)))
    found = tiled.predict_image(model, painted((100, 90), [(10, 10, 40, 40, 0)]), "combined", Evaluate())
    assert len(found) == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_without_a_chosen_plan_every_detection_of_all_passes_is_merged_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def found(number: int, side: int) -> Detections:
        corners = [(float(x), float(y), float(s)) for x, y, s in rng.uniform(4, side - 40, (number, 3)) / [1, 1, 10]]
        return squares(corners, rng.uniform(0, 1, number).tolist(), (side, side))

    parts = [(passes.FULL_IMAGE, [found(30, 300)]), (passes.tiles(1.0), [found(20, 300), found(20, 300)])]
    plan = tiled.plan_of_mode("combined", PLAN, Evaluate(), 300)
    ours = passes.combine(parts, plan, 128, PLAN, (300, 300))
    every = merge(concatenate(one for _, views in parts for one in views), (300, 300), Merge())
    np.testing.assert_array_equal(ours.xyxy, every.xyxy)
    np.testing.assert_array_equal(ours.score, every.score)


def nested_pairs(xyxy: Boxes) -> int:
    """Count pairs of boxes of which one holds 90 % of the other, in plain Python."""
    count = 0
    for i, a in enumerate(xyxy.tolist()):
        for b in xyxy.tolist()[i + 1 :]:
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
            count += shared >= 0.9 * smaller
    return count


def test_a_box_around_two_objects_of_a_coarse_pass_leaves_no_nested_pair() -> None:
    wh = (300, 300)
    fine = squares([(20, 20, 20), (44, 20, 20)], [0.9, 0.8], wh)
    coarse = squares([(18, 8, 48)], [0.7], wh)
    every = merge(concatenate([fine, coarse]), wh, Merge())
    assert nested_pairs(every.xyxy) == 2, "merging by IoU leaves both"
    passes_with_results = [(passes.tiles(1.0), fine), (passes.FULL_IMAGE, coarse)]
    left = passes.combine_merged(passes_with_results, NESTED, 128, PLAN, wh)
    assert (nested_pairs(left.xyxy), left.score.tolist()) == (0, [0.9, 0.8])


@pytest.mark.parametrize(("most", "warnings"), [(3, 1), (100, 0)])
def test_views_that_reach_the_limit_are_counted_in_a_warning(
    caplog: pytest.LogCaptureFixture, most: int, warnings: int
) -> None:
    objects = [(x, y, x + 6, y + 6, 0) for x in (4, 20, 36) for y in (4, 20)]  # six in the first tile, none elsewhere
    with caplog.at_level(logging.WARNING, logger="speck"):
        found = tiled.predict_image(
            chosen(spotter(), with_ranges(passes.tiles(1.0), most=most)), painted(WH, objects), "combined", Evaluate()
        )
    messages = [record.getMessage() for record in caplog.records if "reached the limit" in record.getMessage()]
    assert len(messages) == warnings
    assert len(found) == min(most, 6)
    if warnings:
        assert messages[0].startswith("predict: 1 of 9 views reached the limit of 3 detections")
        assert "scores up to 0.90 may be missing" in messages[0]
