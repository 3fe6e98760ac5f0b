"""NWD-AP compared with greedy matching by plain loops, and its tolerance in pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from tests.train.metrics.test_summary import make_detections, make_truth
from train.detections import EVERY_CATEGORY, no_detections
from train.metrics import nwd
from train.metrics.sized_boxes import ScaledImage
from train.metrics.summary import average_precision

RANGES = {
    "AP": (0, math.inf), "AP_very_tiny": (0, 8), "AP_tiny": (8, 16), "AP_small": (0, 32), "AP_medium": (32, 96),
    "AP_large": (96, math.inf),
}  # fmt: skip


def nwd_of(a: np.ndarray, b: np.ndarray) -> float:
    """NWD by the edges: half the sum of their squared differences is the squared distance."""
    return math.exp(-math.sqrt(float(((a - b) ** 2).sum()) / 2) / 12.7)


def share_inside(box: np.ndarray, region: np.ndarray) -> float:
    shared = np.maximum(np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2]), 0).prod()
    return float(shared / (box[2:] - box[:2]).prod())


def in_range(box: np.ndarray, scale: float, metric: str) -> bool:
    """Buckets by the box, half-open; COCO's ranges hold both their ends."""
    side, (low, high) = math.sqrt(float((box[2:] - box[:2]).prod())) * scale, RANGES[metric]
    return low <= side < high if metric in ("AP_very_tiny", "AP_tiny") else low <= side <= high


def match_greedily(
    image: ScaledImage, category: int, metric: str, threshold: float, counted: int, coco_rules: bool
) -> list[tuple]:
    """Match greedily, best score first: (score, hit) of each detection that is not neutral."""
    truth, found, scale = image
    mine = [row for row in np.argsort(-found.score, kind="stable") if found.category[row] == category][:counted]
    free = {i for i in range(len(truth)) if truth.counted[i] and truth.category[i] == category}
    passed = [
        i for i in range(len(truth))
        if not truth.counted[i] and (truth.category[i] == category or (truth.ignore[i] and not coco_rules))
    ]  # fmt: skip
    rows = []
    for row in mine:
        box = found.xyxy[row]
        taken = None
        for wanted in (True, False):  # of the size, before others
            near = {
                i: nwd_of(box, truth.xyxy[i]) for i in sorted(free)
                if in_range(truth.xyxy[i], scale, metric) is wanted
            }  # fmt: skip
            best = max(near, key=near.__getitem__, default=None)
            if taken is None and best is not None and near[best] >= threshold:
                taken = best
        if taken is not None:
            free.discard(taken)
            if in_range(truth.xyxy[taken], scale, metric):
                rows.append((found.score[row], True))
        elif in_range(box, scale, metric) and not any(
            share_inside(box, truth.xyxy[i]) >= 0.5 or nwd_of(box, truth.xyxy[i]) >= threshold for i in passed
        ):
            rows.append((found.score[row], False))
    return rows


def by_plain_loops(
    images: list[ScaledImage], categories: int, counted: int, coco_rules: bool
) -> dict[str, float | None]:
    answer: dict[str, float | None] = {}
    for metric in RANGES:
        values = []
        for category in range(categories):
            objects = sum(
                bool(truth.counted[i]) and truth.category[i] == category and in_range(truth.xyxy[i], scale, metric)
                for truth, _, scale in images
                for i in range(len(truth))
            )
            if not objects:
                continue
            for threshold in (0.7, 0.75, 0.8, 0.85):
                rows = [
                    row
                    for image in images
                    for row in match_greedily(image, category, metric, threshold, counted, coco_rules)
                ]
                right = [hit for _, hit in sorted(rows, key=lambda row: -row[0])]
                points = [(sum(right[:n]) / objects, sum(right[:n]) / n) for n in range(1, len(right) + 1)]
                values += [
                    max((precision for reached, precision in points if reached >= recall), default=0.0)
                    for recall in np.linspace(0, 1, 101).tolist()
                ]
        answer[f"NWD_{metric}"] = sum(values) / len(values) if values else None
    return answer


def box_rows(most: int) -> st.SearchStrategy[list[list[float]]]:
    """Boxes of whole pixels, so close together that they compete."""
    side = st.one_of(st.integers(1, 18), st.integers(28, 34), st.integers(94, 98))
    one = st.tuples(st.integers(0, 14), st.integers(0, 14), side, st.integers(-1, 1))
    return st.lists(one.map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + max(b[2] + b[3], 1)]), max_size=most)


@st.composite
def some_images(draw: st.DrawFn) -> list[ScaledImage]:
    images = []
    for _ in range(draw(st.integers(1, 3))):
        rows, guesses = draw(box_rows(6)), draw(box_rows(9))
        per = [draw(st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows))) for _ in range(2)]
        truth = make_truth(
            rows, [EVERY_CATEGORY if n == 9 else n % 2 for n in per[0]],
            ignore=[kind == 9 or flag == 0 for kind, flag in zip(*per, strict=True)],
            difficult=[flag == 1 for flag in per[1]],
        )  # fmt: skip
        scores = draw(st.lists(st.integers(1, 4), min_size=len(guesses), max_size=len(guesses)))
        kinds = draw(st.lists(st.integers(0, 1), min_size=len(guesses), max_size=len(guesses)))
        found = make_detections(guesses, [score / 4 for score in scores], kinds)
        images.append(ScaledImage(truth, found, draw(st.sampled_from([1.0, 0.5, 2.0]))))
    return images


@settings(max_examples=150, deadline=None)
@given(some_images(), st.sampled_from([2, 100]), st.booleans())
def test_every_metric_equals_greedy_matching_by_plain_loops(
    images: list[ScaledImage], counted: int, coco_rules: bool
) -> None:
    ours = nwd.average_precision(images, 2, counted, coco_rules=coco_rules)
    assert ours == pytest.approx(by_plain_loops(images, 2, counted, coco_rules), abs=1e-9)


@pytest.mark.parametrize(("dx", "dy", "by_iou"), [(1, 0, 0.3), (0, -1, 0.3), (1, 1, 0.0), (-1, 1, 0.0)])
def test_a_shift_of_one_pixel_costs_a_box_of_four_pixels_its_ap_and_no_nwd_ap(dx: int, dy: int, by_iou: float) -> None:
    truth = make_truth([[10, 10, 14, 14]])
    found = make_detections([[10 + dx, 10 + dy, 14 + dx, 14 + dy]], [0.9])
    measured = average_precision([truth], [found], ["car"])
    assert measured["AP_very_tiny"] == pytest.approx(by_iou)
    assert measured["NWD_AP"] == measured["NWD_AP_very_tiny"] == measured["NWD_AP_small"] == 1.0
    assert measured["NWD_AP_tiny"] is None


@pytest.mark.parametrize(("shift", "passed"), [(1, 4), (2, 4), (2.5, 3), (3.5, 2), (4.5, 1), (4.6, 0)])
def test_a_shift_passes_the_same_thresholds_at_any_size(shift: float, passed: int) -> None:
    for side in (5, 50, 500):
        found = make_detections([[shift, 0, side + shift, side]], [0.9])
        assert average_precision([make_truth([[0, 0, side, side]])], [found], ["car"])["NWD_AP"] == passed / 4


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.floats(3, 500), st.floats(3, 500))
def test_labels_a_pixel_off_at_every_edge_pass_every_threshold(off: list[float], w: float, h: float) -> None:
    box = boxes.as_boxes([10, 10, 10 + w, 10 + h])
    assert boxes.nwd(box + np.array(off), box)[0] >= 0.894 > nwd.THRESHOLDS[-1]


def test_an_ignore_region_excuses_detections_of_every_category_and_need_not_be_found() -> None:
    truth = make_truth([[0, 0, 6, 6], [100, 100, 200, 200]], [0, EVERY_CATEGORY], ignore=[False, True])
    inside = make_detections([[120, 120, 124, 124], [197, 150, 201, 154], [0, 0, 6, 6]], [0.9, 0.8, 0.7])
    assert average_precision([truth], [inside], ["car", "bus"])["NWD_AP"] == 1.0
    outside = make_detections([[199, 150, 203, 154], [0, 0, 6, 6]], [0.9, 0.7])
    assert average_precision([truth], [outside], ["car", "bus"])["NWD_AP"] == pytest.approx(0.5)


def test_a_difficult_object_is_neutral_for_its_category_alone() -> None:
    truth = make_truth([[0, 0, 6, 6], [50, 50, 54, 54]], [0, 0], difficult=[False, True])
    near = [[52, 50, 56, 54], [50, 51, 54, 55], [0, 0, 6, 6]]
    assert average_precision([truth], [make_detections(near, [0.9, 0.8, 0.7])], ["car", "bus"])["NWD_AP"] == 1.0
    both = make_truth([[0, 0, 6, 6], [50, 50, 54, 54], [90, 90, 96, 96]], [0, 0, 1], difficult=[False, True, False])
    other = make_detections([*near[:1], [90, 90, 96, 96], near[2]], [0.9, 0.8, 0.7], [1, 1, 0])
    assert average_precision([both], [other], ["car", "bus"])["NWD_AP"] == pytest.approx((1 + 0.5) / 2)


def test_as_many_detections_count_as_by_iou() -> None:
    rows = [[30.0 * (i % 20), 30.0 * (i // 20), 30.0 * (i % 20) + 5, 30.0 * (i // 20) + 5] for i in range(150)]
    truth, found = make_truth(rows), make_detections(rows, np.linspace(1, 0.5, 150).tolist())
    for coco_rules, expected in ((False, 1.0), (True, 67 / 101)):  # recall 0, 0.01 ... 0.66
        measured = average_precision([truth], [found], ["car"], coco_rules=coco_rules)
        assert measured["NWD_AP"] == measured["AP"] == pytest.approx(expected)


def test_sizes_may_be_in_network_pixels_but_distances_are_in_source_pixels() -> None:
    truth, found = make_truth([[0, 0, 20, 20]]), make_detections([[2, 0, 22, 20]], [0.9])
    measured = average_precision([truth], [found], ["car"], scale=[10.0])
    assert measured["NWD_AP_large"] == 1.0 and measured["NWD_AP_small"] is None


@pytest.mark.parametrize("images", [0, 2])
def test_without_ground_truth_every_metric_is_none_and_without_detections_0(images: int) -> None:
    measured = average_precision([make_truth([])] * images, [no_detections()] * images, ["car"])
    assert {measured[f"NWD_{name}"] for name in RANGES} == {None}
    assert average_precision([make_truth([[0, 0, 4, 4]])], [no_detections()], ["car", "bus"])["NWD_AP"] == 0.0


def test_a_detection_whose_object_goes_to_a_higher_score_takes_the_next() -> None:
    truth = make_truth([[x, 0, x + 6, 6] for x in (0, 2, 4)])
    found = make_detections(
        [[0, 0, 6, 6], [0.5, 0, 6.5, 6], [2, 0, 8, 6]], [0.9, 0.8, 0.7]
    )  # each wants one further left
    assert average_precision([truth], [found], ["car"])["NWD_AP"] == 1.0
