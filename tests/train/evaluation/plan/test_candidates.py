"""The plans that are tried: every pass alone, and sets of passes whose ranges follow labels or tiles."""

from __future__ import annotations

import pytest

from etl.evaluation import MergeSettings
from etl.plan import TilePlan
from train.evaluation.plan.candidates import Geometry, merge_candidates, pass_candidates, with_ranges
from train.prediction.passes import FULL_IMAGE, OVERLAP, tiles

NMS = MergeSettings(method="nms", metric="iou", threshold=0.5)
TILE = TilePlan(size=320, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
GEOMETRY = Geometry(TILE, 640, (1600, 1200), {1.0: (8.0, 80.0), 0.5: (10.0, 100.0)})  # 2, 1 and 0.4 network px per px


def test_every_pass_is_tried_alone_and_every_run_of_scales_with_and_without_the_whole_image() -> None:
    plans = {one.name: one.plan for one in pass_candidates(GEOMETRY, NMS, 500)}
    sets = {tuple(one.name for one in plan.passes) for plan in plans.values()}
    fine, coarse, whole = "tiles x1", "tiles x0.5", "full_image"
    assert sets == {(whole,), (fine,), (coarse,), (fine, coarse), (fine, whole), (coarse, whole), (fine, coarse, whole)}
    assert len(plans) == 3 + 2 * 4
    assert {plan.max_detections for plan in plans.values()} == {500}
    alone = [plan for plan in plans.values() if len(plan.passes) == 1]
    assert {(plan.passes[0].size_range, plan.across) for plan in alone} == {((0.0, None), None)}
    assert all(plan.across is not None for plan in plans.values() if len(plan.passes) > 1)


def test_trained_scales_have_the_sizes_of_their_labels_and_another_what_lies_beyond() -> None:
    fine, coarse, whole = with_ranges([tiles(1.0), tiles(0.5), FULL_IMAGE], "trained sizes", GEOMETRY)
    assert fine.size_range == pytest.approx((8 / 1.25, 80 * 1.25))
    assert coarse.size_range == pytest.approx((10 / 1.25, 100 * 1.25))
    reach = 100 * 1.25 / 1.0  # source pixels
    assert whole.size_range == (pytest.approx(reach / OVERLAP * 0.4), None)


def test_a_finer_scale_than_any_trained_one_has_what_lies_below() -> None:
    geometry = Geometry(TILE, 640, (1600, 1200), {0.5: (10.0, 100.0)})
    fine, _ = with_ranges([tiles(1.0), tiles(0.5)], "trained sizes", geometry)
    assert fine.size_range == pytest.approx((0.0, 10 / 1.25 * OVERLAP * 2))


def test_coarser_passes_add_what_finer_tiles_may_cut() -> None:
    fine, coarse, whole = with_ranges([tiles(1.0), tiles(0.5), FULL_IMAGE], "whole objects", GEOMETRY)
    assert fine.size_range == (0.0, None)
    assert coarse.size_range == (pytest.approx(80 / 2 * 1.0), None)  # tiles of 320 px start every 240 px
    assert whole.size_range == (pytest.approx(160 / 2 * 0.4), None)


def test_variants_merge_otherwise_and_only_several_passes_are_calibrated() -> None:
    by_name = {one.name: one for one in pass_candidates(GEOMETRY, NMS, 300)}
    alone = merge_candidates(by_name["tiles x1"], ["nms", "wbf"])
    assert [one.name for one in alone] == ["tiles x1, merged by wbf", "tiles x1, nested boxes merged"]
    assert [(one.plan.merge.method, one.plan.across is None) for one in alone] == [("wbf", True), ("nms", False)]
    several = merge_candidates(by_name["tiles x1 + full image, whole objects"], ["nms"])
    assert [(one.name.rpartition(", ")[2], one.calibrated) for one in several] == [("calibrated scores", True)]
