"""What a cut into tiles tears apart, merging restores."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from etl.config import Merge
from etl.plan import TilePlan
from train.detections import BORDER, Detections, concatenate
from train.prediction.merge import fuse, merge, suppress
from train.prediction.neighbours import touching_pairs

PLAN = TilePlan(size=128, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
NMS = Merge()


def detections(rows: list[list[float]], score: list[float], window: list[list[float]], kind: int = 0) -> Detections:
    return Detections(
        boxes.as_boxes(rows), np.array(score), np.full(len(rows), kind, dtype=np.int64), boxes.as_boxes(window)
    )


def cut(truth: Boxes, category: NDArray[np.int64], wh: tuple[int, int], scales: tuple[float, ...]) -> Detections:
    """What a perfect detector sees: in each tile the visible part of each object, scored by its visibility."""
    parts = []
    for scale in scales:
        for window in PLAN.windows(*wh, scale):
            seen = boxes.visibility(truth, window)
            visible = np.flatnonzero(seen > 0)
            views = np.tile(np.array(window, dtype=np.float64), (len(visible), 1))
            parts.append(Detections(boxes.clip(truth, window)[visible], seen[visible], category[visible], views))
    return concatenate(parts)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Boxes, NDArray[np.int64], tuple[int, int]]:
    """Objects from a few pixels to larger than a tile, apart enough within a category, none ending on a border."""
    wh = draw(st.integers(100, 420)), draw(st.integers(100, 420))
    borders = [
        {v for s in PLAN.scales for w in PLAN.windows(*wh, s) for v in (w[axis], w[axis + 2])} for axis in (0, 1)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kept: list[NDArray[np.float64]] = []
    kinds: list[int] = []
    for _ in range(draw(st.integers(1, 25))):
        size = np.minimum(np.exp(rng.uniform(0.7, 5.7, 2)), wh)
        low = rng.uniform(0, np.array(wh) - size)
        box, kind = np.concatenate([low, low + size]), int(rng.integers(0, 2))
        ends_on_border = any(abs(box[side] - border) <= 2 * BORDER for side in range(4) for border in borders[side % 2])
        rivals = [k for k, other in zip(kept, kinds, strict=True) if other == kind]
        if not ends_on_border and not any(confusable(box, rival) for rival in rivals):
            kept.append(box)
            kinds.append(kind)
    assume(kept)
    return np.array(kept), np.array(kinds, dtype=np.int64), wh


def confusable(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether suppression takes two boxes for one, or two pieces of them lie alike along a cut."""
    if boxes.iou(a[None], b[None])[0, 0] >= 0.45:
        return True
    return any(abs(a[i] - b[i]) < 1e-6 and abs(a[i + 2] - b[i + 2]) < 1e-6 for i in (0, 1))


@settings(max_examples=150, deadline=None)
@given(scenes(), st.sampled_from([(1.0,), (1.0, 0.5)]), st.booleans())
def test_truth_cut_by_tiles_is_restored_exactly(
    scene: tuple[Boxes, NDArray[np.int64], tuple[int, int]], scales: tuple[float, ...], with_full_image: bool
) -> None:
    truth, category, wh = scene
    seen = cut(truth, category, wh, scales)
    if with_full_image:
        whole = Detections(truth, np.ones(len(truth)), category, np.tile([0.0, 0, *wh], (len(truth), 1)))
        seen = concatenate([seen, whole])
    merged = merge(seen, wh, NMS)
    assert rows(merged.xyxy, merged.category) == rows(truth, category)


def rows(xyxy: Boxes, category: NDArray[np.int64]) -> list[tuple[float, ...]]:
    return sorted((float(c), *map(float, box)) for c, box in zip(category, xyxy, strict=True))


@settings(max_examples=40, deadline=None)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(
    scene: tuple[Boxes, NDArray[np.int64], tuple[int, int]], random: object
) -> None:
    truth, category, wh = scene
    seen = cut(truth, category, wh, PLAN.scales)
    order = np.arange(len(seen))
    random.shuffle(order)  # type: ignore[attr-defined]
    one, other = merge(seen, wh, NMS), merge(seen.take(order), wh, NMS)
    np.testing.assert_array_equal(one.xyxy, other.xyxy)
    np.testing.assert_array_equal(one.score, other.score)


def test_an_object_larger_than_a_tile_is_stitched_from_a_chain_and_keeps_the_best_score() -> None:
    truth = boxes.as_boxes([[20, 30, 390, 60]])
    seen = cut(truth, np.zeros(1, dtype=np.int64), (400, 100), (1.0,))
    assert len(seen) >= 4
    merged = merge(seen, (400, 100), NMS)
    np.testing.assert_array_equal(merged.xyxy, truth)
    assert merged.score[0] == seen.score.max()


def test_neighbours_that_end_inside_the_overlap_are_not_stitched() -> None:
    # Tiles [0, 128] and [96, 224]: the left object is cut in the right tile, the right object in the left one.
    truth = boxes.as_boxes([[60, 10, 108, 40], [116, 10, 180, 40]])
    merged = merge(cut(truth, np.zeros(2, dtype=np.int64), (224, 100), (1.0,)), (224, 100), NMS)
    assert rows(merged.xyxy, merged.category) == rows(truth, np.zeros(2, dtype=np.int64))


@pytest.mark.parametrize(("cover", "left"), [(0.69, 2), (0.71, 1)])
def test_a_cut_detection_goes_when_a_whole_one_covers_seven_tenths_of_it(cover: float, left: int) -> None:
    piece, whole = [96.0, 0, 106, 20], [106 - 10 * cover, 0, 140, 20]  # the piece touches the border at x = 96
    seen = detections([piece, whole], [0.9, 0.2], [[96, 0, 224, 100], [0, 0, 224, 100]])
    assert len(merge(seen, (224, 100), NMS)) == left
    other = replace(seen, category=np.array([0, 1]))
    assert len(merge(other, (224, 100), NMS)) == 2


@pytest.mark.parametrize(("grain", "left"), [(1.0, 2), (4.0, 1)])
def test_how_near_a_border_may_have_cut_is_counted_in_pixels_of_the_view(grain: float, left: int) -> None:
    # 6 source px off the border at x = 128: one and a half pixels of a view at a quarter of the scale.
    seen = detections([[90, 0, 122, 20], [90, 0, 140, 20]], [0.9, 0.2], [[0, 0, 128, 100], [0, 0, 512, 100]])
    coarse = replace(seen, grain=np.array([grain, 1.0]))
    assert len(merge(coarse, (512, 100), Merge(threshold=0.9))) == left


def test_the_grain_of_a_view_goes_where_its_detections_go() -> None:
    seen = detections([[0, 0, 9, 9], [20, 0, 29, 9]], [0.9, 0.8], [[0, 0, 99, 99]] * 2)
    coarse = concatenate([seen, replace(seen, grain=np.array([4.0, 8.0]))])
    assert coarse.border.tolist() == [BORDER, BORDER, 4 * BORDER, 8 * BORDER]
    assert coarse.take(np.array([3, 0])).border.tolist() == [8 * BORDER, BORDER]


def test_a_detection_at_the_border_of_the_image_is_whole() -> None:
    at_edge, cover = [0.0, 0, 10, 20], [0.0, 0, 40, 40]
    seen = detections([at_edge, cover], [0.9, 0.2], [[0, 0, 128, 100], [0, 0, 128, 100]])
    assert len(merge(seen, (224, 100), NMS)) == 2


@pytest.mark.parametrize(("metric", "left"), [("iou", 2), ("ios", 1)])
def test_a_box_inside_another_goes_by_intersection_over_the_smaller(metric: str, left: int) -> None:
    seen = detections([[0, 0, 40, 40], [10, 10, 20, 20]], [0.9, 0.8], [[0, 0, 99, 99]] * 2)
    assert len(merge(seen, (99, 99), Merge(metric=metric))) == left


NUMBERS = st.integers(0, 120) | st.integers(513, 600)  # compared directly; put on grids


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), NUMBERS, NUMBERS)
def test_neighbours_are_exactly_the_touching_pairs_of_a_comparison_of_all(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> tuple[Boxes, NDArray[np.int64]]:
        low = np.round(rng.uniform(-300, 300, (count, 2)), 1)
        size = np.round(np.exp(rng.uniform(-2, 6, (count, 2))), 1)
        return np.concatenate([low, low + size], axis=1), rng.integers(0, 3, count)

    (a, a_key), (b, b_key) = some(n), some(m)
    pairs = [pair for i, j in touching_pairs(a, b, a_key, b_key) for pair in zip(i.tolist(), j.tolist(), strict=True)]
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    expected = (low <= high).all(axis=2) & (a_key[:, None] == b_key)
    assert sorted(pairs) == list(zip(*map(list, expected.nonzero()), strict=True))


def check_suppression(rng: np.random.Generator, count: int, extent: int, threshold: float) -> None:
    """Compare suppression with the textbook loop."""
    low = rng.integers(0, extent, (count, 2)).astype(float)
    xyxy = np.concatenate([low, low + rng.integers(1, 40, (count, 2))], axis=1)
    score, kind = np.round(rng.random(count), 1), rng.integers(0, 2, count)
    seen = Detections(xyxy, score, kind, xyxy)
    kept: list[int] = []
    overlap = boxes.iou(xyxy, xyxy)
    for i in sorted(range(count), key=lambda i: (-score[i], kind[i], *xyxy[i])):
        if all(kind[i] != kind[k] or overlap[i, k] < threshold for k in kept):
            kept.append(i)
    assert suppress(seen, "iou", threshold).tolist() == kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 150), st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_suppression_equals_the_textbook_loop(seed: int, count: int, threshold: float) -> None:
    check_suppression(np.random.default_rng(seed), count, 40, threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("extent", [40, 150])
def test_suppression_of_many_boxes_equals_the_textbook_loop(extent: int, threshold: float) -> None:
    check_suppression(np.random.default_rng(extent), 2000, extent, threshold)


def test_nothing_merges_to_nothing() -> None:
    assert len(merge(concatenate([]), (100, 100), NMS)) == 0


def test_fifty_thousand_boxes_merge_without_comparing_all_pairs() -> None:
    rng = np.random.default_rng(0)
    plan = TilePlan(size=640, overlap=0.2, min_visibility=0.4, scales=(1.0, 0.5))
    low = rng.uniform(0, 6000, (15_000, 2))
    truth = np.concatenate([low, np.minimum(low + rng.lognormal(3, 0.8, (15_000, 2)), 6000)], axis=1)
    parts = []
    for scale in plan.scales:
        for window in plan.windows(6000, 6000, scale):
            seen = np.flatnonzero(boxes.visibility(truth, window) > 0.05)
            noisy = boxes.clip(truth[seen], window) + rng.normal(0, 1, (len(seen), 4))
            views = np.tile(np.array(window, dtype=np.float64), (len(seen), 1))
            parts.append(Detections(noisy, rng.random(len(seen)), seen % 4, views))
    many = concatenate(parts)
    many = many.take(rng.permutation(len(many))[:50_000])
    assert len(many) == 50_000
    begin = time.process_time()
    merge(many, (6000, 6000), NMS)
    assert time.process_time() - begin < 2.0  # about 0.4 s on one core; all pairs would take minutes


def test_boxes_that_all_lie_on_one_another_stay_cheap() -> None:
    rng = np.random.default_rng(0)
    xyxy = np.tile([100.0, 100, 150, 150], (50_000, 1)) + rng.normal(0, 0.5, (50_000, 4))
    heap = Detections(
        xyxy, rng.random(50_000), np.zeros(50_000, dtype=np.int64), np.tile([0.0, 0, 900, 900], (50_000, 1))
    )
    begin = time.process_time()
    assert len(merge(heap, (900, 900), NMS)) == 1
    assert time.process_time() - begin < 10.0


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.sampled_from(["iou", "ios"]), st.sampled_from([0.3, 0.5, 0.8]))
def test_fusing_unites_or_averages_what_suppression_takes_away(seed: int, number: int, metric: str, at: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 30, (number, 2)) * 4.0
    xyxy = np.concatenate([low, low + rng.integers(4, 40, (number, 2))], axis=1)
    kinds = rng.integers(0, 2, number)
    seen = Detections(xyxy, rng.random(number), kinds, np.tile([0.0, 0, 200, 200], (number, 1)))
    kept = suppress(seen, metric, at)
    members: dict[int, list[int]] = {int(best): [int(best)] for best in kept}
    for row in set(range(number)) - members.keys():
        for best in kept.tolist():  # best first
            shared = float(boxes.intersection(xyxy[[row]], xyxy[[best]])[0, 0])
            areas = boxes.area(xyxy[[row, best]])
            if kinds[row] == kinds[best] and shared >= at * (areas.min() if metric == "ios" else areas.sum() - shared):
                members[best].append(row)
                break
    assert sum(map(len, members.values())) == number
    for method in ("nmm", "wbf"):
        how = Merge(method=method, metric=metric, threshold=at)
        fused = fuse(seen, kept, how)
        assert len(suppress(merge(seen, (200, 200), how), metric, at)) == len(merge(seen, (200, 200), how))
        assert (fused.score == seen.score[kept]).all()
        assert (fused.category == kinds[kept]).all()
        for box, rows in zip(fused.xyxy, members.values(), strict=True):
            mine, weight = xyxy[rows], seen.score[rows][:, None]
            if method == "nmm":
                expected = np.concatenate([mine[:, :2].min(axis=0), mine[:, 2:].max(axis=0)])
            else:
                expected = (mine * weight).sum(axis=0) / weight.sum()
            assert box == pytest.approx(expected)


def test_fusing_by_weight_is_nearer_to_the_truth_than_the_best_box_alone() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[x, y, x + 20.0, y + 20.0] for x in range(0, 800, 40) for y in range(0, 800, 40)])
    seen = np.repeat(truth, 4, axis=0) + rng.normal(0, 1.5, (4 * len(truth), 4))
    number, window = len(seen), [0.0, 0, 800, 800]
    found = Detections(seen, rng.random(number), np.zeros(number, dtype=np.int64), np.tile(window, (number, 1)))
    error = {}
    for method in ("nms", "wbf"):
        merged = merge(found, (800, 800), Merge(method=method))
        error[method] = 1 - boxes.iou(merged.xyxy, truth).max(axis=1).mean()
    assert error["wbf"] < 0.85 * error["nms"]


@pytest.mark.parametrize("method", ["nms", "nmm", "wbf"])
def test_boxes_that_meet_when_they_are_fused_are_one_object(method: str) -> None:
    """Two kept boxes, apart by an IoU of 0.43, each with a weaker one that draws it towards the other."""
    xyxy = [[0.0, 0, 10, 10], [0, 4, 10, 14], [0, -2, 10, 10], [0, 0, 10, 15]]
    found = Detections(
        np.array(xyxy) + 20, np.array([0.9, 0.5, 0.45, 0.4]), np.zeros(4, np.int64), np.tile([0.0, 0, 99, 99], (4, 1))
    )
    merged = merge(found, (99, 99), Merge(method=method, metric="iou", threshold=0.5))
    assert len(suppress(merged, "iou", 0.5)) == len(merged)
