"""Average precision compared with pycocotools and with values computed by hand."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from etl import boxes
from etl.evaluation import METRICS
from train.detections import EVERY_CATEGORY, Detections, GroundTruth, no_detections
from train.metrics import error_types, summary
from train.metrics.summary import average_precision

NAMES = ("car", "bus", "bike")


def make_truth(rows: list[list[float]], category: list[int] | None = None, **flags: Any) -> GroundTruth:
    xyxy = boxes.as_boxes(rows)
    n = len(xyxy)
    return GroundTruth(
        xyxy,
        np.array([0] * n if category is None else category, dtype=np.int64),
        np.asarray(flags.get("area", boxes.area(xyxy)), dtype=np.float64),
        np.asarray(flags.get("ignore", [False] * n), dtype=np.bool_),
        np.asarray(flags.get("difficult", [False] * n), dtype=np.bool_),
    )


def make_detections(rows: list[list[float]], score: list[float], category: list[int] | None = None) -> Detections:
    xyxy = boxes.as_boxes(rows)
    kinds = np.array([0] * len(xyxy) if category is None else category, dtype=np.int64)
    return Detections(xyxy, np.array(score, dtype=np.float64), kinds, np.tile([0.0, 0, 500, 500], (len(xyxy), 1)))


def random_image(rng: np.random.Generator) -> tuple[GroundTruth, Detections]:
    n, extra = int(rng.integers(0, 40)), int(rng.integers(0, 150))
    size = np.exp(rng.uniform(0.5, 5.2, (n, 2)))
    low = rng.uniform(0, 400, (n, 2))
    xyxy = np.concatenate([low, low + size], axis=1)
    category = rng.integers(0, 3, n)
    truth = GroundTruth(
        xyxy, category, boxes.area(xyxy) * rng.uniform(0.5, 1, n), rng.random(n) < 0.1, np.zeros(n, bool)
    )
    low = rng.uniform(0, 400, (extra, 2))
    noise = np.concatenate([low, low + np.exp(rng.uniform(0.5, 5.2, (extra, 2)))], axis=1)
    near = xyxy + rng.normal(0, 0.08, xyxy.shape) * np.tile(size, 2)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.5)
    guess = np.concatenate([near, noise])
    kinds = np.concatenate([category, rng.integers(0, 3, extra)])
    score = np.round(rng.random(len(guess)), 2)  # ties, as quantised models give them
    return truth, Detections(guess, score, kinds, np.zeros((len(guess), 4)))


def pycocotools_stats(images: list[tuple[GroundTruth, Detections]]) -> NDArray[np.float64]:
    head = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": i} for i in range(3)]}
    labels, results = [], []
    for i, (truth, found) in enumerate(images):
        for box, c, area, ignore in zip(truth.xyxy, truth.category, truth.area, truth.ignore, strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            entry = {"image_id": i, "category_id": int(c), "bbox": bbox, "area": area, "iscrowd": int(ignore)}
            labels.append({**entry, "id": len(labels) + 1})
        for box, c, score in zip(found.xyxy, found.category, found.score, strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": i, "category_id": int(c), "bbox": bbox, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = {**head, "annotations": labels, "info": {}}
        gold.createIndex()
        run = COCOeval(gold, gold.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_coco_metrics_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(12)]
    measured = average_precision([t for t, _ in images], [d for _, d in images], NAMES, coco_rules=True)
    keys = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    keys += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
    ours = np.array([-1.0 if measured[key] is None else measured[key] for key in keys])
    np.testing.assert_allclose(ours, pycocotools_stats(images), rtol=0, atol=1e-12)


def test_half_of_the_objects_matched_without_a_false_positive_is_an_ap_of_51_of_101() -> None:
    truth = make_truth([[0, 0, 20, 20], [100, 100, 120, 120]])
    measured = average_precision([truth], [make_detections([[0, 0, 20, 20]], [0.9])], ["car"])
    assert measured["AP50"] == pytest.approx(51 / 101)  # recall 0, 0.01 ... 0.5
    assert measured["AR"] == pytest.approx(0.5)


def test_each_box_counts_in_the_bucket_of_its_side_length_and_a_bucket_without_truth_is_null() -> None:
    sides = [7.9, 8.0, 15.9]
    truth = make_truth([[50.0 * i, 0, 50.0 * i + s, s] for i, s in enumerate(sides)])
    perfect = make_detections(truth.xyxy.tolist(), [0.9, 0.8, 0.7])
    measured = average_precision([truth], [perfect], ["car"])
    assert dict(measured.buckets.items()) == {"very_tiny": 1, "tiny": 2, "small": 0, "medium": 0, "large": 0}
    assert (measured["AP_very_tiny"], measured["AP_tiny"], measured["AP_small"]) == (1.0, 1.0, 1.0)
    assert measured["AP_medium"] is None and measured["AR_large"] is None
    only_first = average_precision([truth], [make_detections([[0, 0, 7.9, 7.9]], [0.9])], ["car"])
    assert (only_first["AP_very_tiny"], only_first["AP_tiny"]) == (1.0, 0.0)


def test_coco_sizes_go_by_the_area_the_file_states_and_the_buckets_by_the_box() -> None:
    truth = make_truth([[0, 0, 40, 40]], area=[500.0])  # a thin object in a medium box
    measured = average_precision([truth], [make_detections([[0, 0, 40, 40]], [0.9])], ["car"])
    assert measured["AP_small"] == 1.0 and measured["AP_medium"] is None
    assert measured.buckets["medium"] == 1


def test_sizes_in_network_pixels_follow_the_scale_of_each_image() -> None:
    truth = make_truth([[0, 0, 20, 20]])
    found = make_detections([[0, 0, 20, 20]], [0.9])
    assert average_precision([truth], [found], ["car"], scale=[0.5]).buckets["tiny"] == 1
    assert average_precision([truth], [found], ["car"], scale=[5.0])["AP_large"] == 1.0


def test_an_ignore_region_excuses_detections_of_every_category_and_need_not_be_found() -> None:
    truth = make_truth([[0, 0, 20, 20], [100, 100, 200, 200]], [0, EVERY_CATEGORY], ignore=[False, True])
    boxes_found = [[120, 120, 140, 140], [150, 150, 160, 160], [0, 0, 20, 20]]
    found = make_detections(boxes_found, [0.9, 0.8, 0.7], [0, 0, 0])
    assert average_precision([truth], [found], ["car", "bus"])["AP"] == 1.0
    elsewhere = make_detections([[300, 300, 320, 320], [0, 0, 20, 20]], [0.9, 0.7])
    assert average_precision([truth], [elsewhere], ["car", "bus"])["AP"] == pytest.approx(0.5)


def test_a_difficult_object_is_neutral_for_its_category_alone() -> None:
    truth = make_truth([[0, 0, 20, 20], [100, 100, 120, 120]], [0, 0], difficult=[False, True])
    found = make_detections([[100, 100, 120, 120], [0, 0, 20, 20]], [0.9, 0.7])
    assert average_precision([truth], [found], ["car", "bus"])["AP"] == 1.0
    assert average_precision([truth], [make_detections([[0, 0, 20, 20]], [0.7])], ["car", "bus"])["AP"] == 1.0


def test_more_than_a_hundred_objects_of_an_image_all_count() -> None:
    rows = [[30.0 * (i % 20), 30.0 * (i // 20), 30.0 * (i % 20) + 10, 30.0 * (i // 20) + 10] for i in range(150)]
    truth, found = make_truth(rows), make_detections(rows, np.linspace(1, 0.5, 150).tolist())
    assert average_precision([truth], [found], ["car"])["AP"] == 1.0
    assert average_precision([truth], [found], ["car"])["AR100"] == pytest.approx(100 / 150)
    assert average_precision([truth], [found], ["car"], coco_rules=True)["AP"] < 0.7


@pytest.mark.parametrize("images", [0, 2])
def test_without_ground_truth_every_metric_is_none(images: int) -> None:
    measured = average_precision([make_truth([])] * images, [no_detections()] * images, ["car"])
    assert {measured[metric] for metric in METRICS} == {None}


def test_objects_without_a_single_detection_are_an_ap_of_zero() -> None:
    measured = average_precision([make_truth([[0, 0, 20, 20]])], [no_detections()], ["car", "bus"])
    assert measured["AP"] == 0.0 and measured["AR"] == 0.0
    assert measured.categories["bus"].AP is None


def test_matching_takes_each_object_once_best_score_first() -> None:
    truth = make_truth([[0, 0, 20, 20], [50, 50, 90, 90]], ignore=[False, True])
    found = make_detections([[0, 0, 19, 20], [0, 0, 20, 20], [60, 60, 70, 70]], [0.9, 0.8, 0.7])
    matched = summary.match(truth, found)
    assert matched.owner.tolist() == [0, -1, -1]
    assert matched.neutral.tolist() == [False, False, True]


def test_an_image_with_very_many_detections_is_matched_in_little_memory() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 4000, (10_500, 2))
    rows, scores = np.concatenate([low, low + 12], axis=1).tolist(), rng.random(10_000).tolist()
    truth, found = make_truth(rows[10_000:]), make_detections(rows[:10_000], scores)
    tracemalloc.start()
    summary.match(truth, found)
    error_types.count_errors([truth], [found], [1.0])
    error_types.confusion_matrix([truth], [found], 1)
    error_types.centre_recall([truth], [found], [1.0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6, "one matrix of all pairs is 40 MB, their shared areas need several"


def match_by_plain_loops(truth: GroundTruth, found: Detections) -> list[int]:
    """The object of each detection, -1 without one: best score first, the closest free one, the first of equal ones."""
    owner, free = [-1] * len(found), {row for row in range(len(truth)) if truth.counted[row]}
    overlap = boxes.iou(found.xyxy, truth.xyxy)
    for row in sorted(range(len(found)), key=lambda row: -found.score[row]):
        own = [other for other in sorted(free) if truth.category[other] == found.category[row]]
        best = max(own, key=lambda other: overlap[row, other], default=None)
        if best is not None and overlap[row, best] >= 0.5:
            owner[row] = best
            free.remove(best)
    return owner


@pytest.mark.parametrize("seed", range(5))
def test_matching_of_one_image_equals_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        low, size = rng.integers(0, 6, (50, 2)), rng.integers(7, 10, (50, 2))
        rows, kinds = np.concatenate([low, low + size], axis=1).tolist(), rng.integers(0, 2, 50).tolist()
        truth = make_truth(rows[:15], kinds[:15], ignore=rng.random(15) < 0.2)
        found = make_detections(rows[15:], (rng.integers(0, 5, 35) / 4).tolist(), kinds[15:])
        assert summary.match(truth, found).owner.tolist() == match_by_plain_loops(truth, found)
