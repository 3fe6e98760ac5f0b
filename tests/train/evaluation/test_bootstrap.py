"""Bootstrap resamples give exactly the average precision of the drawn images; the gate compares two models on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from etl import boxes
from etl.config import Gate
from tests.train.evaluation.test_metrics import NAMES, make_detections, make_truth, random_image
from train.detections import Detections, GroundTruth
from train.evaluation import bootstrap, coco, gate
from train.evaluation.matching import MatchedDetections, match_images
from train.evaluation.metrics import average_precision
from train.evaluation.sized_boxes import scaled_images

Images = list[tuple[GroundTruth, Detections]]


@pytest.fixture(scope="module")
def images() -> Images:
    """Images with distinct scores: equal ones in copies of an image may come in another order."""
    rng = np.random.default_rng(11)
    pairs = [random_image(rng) for _ in range(12)]
    return [(truth, replace(found, score=found.score + rng.uniform(0, 0.009, len(found)))) for truth, found in pairs]


def matched(images: Images) -> MatchedDetections:
    return match_images(scaled_images(*zip(*images, strict=True)), len(NAMES), coco.IOU)


@pytest.mark.parametrize("metric", [*bootstrap.METRICS, "AP50_tiny", "AP50_small"])
def test_a_resample_gives_the_average_precision_of_the_drawn_images(images: Images, metric: str) -> None:
    weights = np.vstack([np.ones((1, len(images)), dtype=np.int64), bootstrap.resample(len(images), 6)])
    ours = bootstrap.average_precision(matched(images), metric, weights)
    for value, counts in zip(ours.tolist(), weights, strict=True):
        drawn = [image for image, times in zip(images, counts.tolist(), strict=True) for _ in range(times)]
        whole = average_precision([truth for truth, _ in drawn], [found for _, found in drawn], NAMES)
        expected = np.nan if whole[metric] is None else whole[metric]
        assert value == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_every_image_once_gives_the_metric_itself_with_equal_scores_too() -> None:
    rng = np.random.default_rng(3)
    images = [random_image(rng) for _ in range(8)]
    whole = average_precision([truth for truth, _ in images], [found for _, found in images], NAMES)
    for metric in bootstrap.METRICS:
        ours = bootstrap.average_precision(matched(images), metric, np.ones((1, 8), dtype=np.int64))
        assert float(ours[0]) == pytest.approx(whole[metric], abs=1e-9)


def test_resamples_draw_as_many_images_and_are_the_same_for_a_seed() -> None:
    weights = bootstrap.resample(7, 50)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == bootstrap.resample(7, 50)).all()
    assert (weights != bootstrap.resample(7, 50, seed=1)).any()


def test_an_interval_contains_the_metric_and_narrows_with_more_images(images: Images) -> None:
    few, many = (bootstrap.confidence_intervals(matched(images * times)) for times in (1, 4))
    value = average_precision([truth for truth, _ in images], [found for _, found in images], NAMES)["AP50"]
    for low, high in (few["AP50"], many["AP50"]):
        assert low < value < high
    assert many["AP50"][1] - many["AP50"][0] < 0.7 * (few["AP50"][1] - few["AP50"][0])
    empty = bootstrap.confidence_intervals(matched([(make_truth([]), make_detections([], []))]))
    assert set(empty.values()) == {None}


def test_an_unknown_metric_is_an_error(images: Images) -> None:
    with pytest.raises(KeyError, match="AP_huge"):
        bootstrap.average_precision(matched(images), "AP_huge", bootstrap.resample(12, 2))


def scenes(found_share: dict[str, float], number: int = 60) -> MatchedDetections:
    """Images with four objects of each of three sizes, and exact detections of these shares of them."""
    rng = np.random.default_rng(5)
    images = []
    for index in range(number):
        rows, seen = [], []
        for row, (bucket, side) in enumerate((("tiny", 12.0), ("small", 24.0), ("medium", 60.0))):
            for column in range(4):
                box = [100.0 * column, 100.0 * row, 100.0 * column + side, 100.0 * row + side]
                rows.append(box)
                if (index * 4 + column) * 0.6180339 % 1 < found_share[bucket]:
                    seen.append(box)
        images.append((make_truth(rows), make_detections(seen, rng.uniform(0.5, 1, len(seen)).tolist())))
    return matched(images)


def test_a_regression_on_tiny_objects_blocks_even_if_overall_ap_rises() -> None:
    champion = scenes({"tiny": 0.8, "small": 0.5, "medium": 0.4})
    challenger = scenes({"tiny": 0.6, "small": 0.9, "medium": 0.9})
    ones = np.ones((1, 60), dtype=np.int64)
    assert bootstrap.average_precision(challenger, "AP", ones) > bootstrap.average_precision(champion, "AP", ones)
    found = gate.decide(challenger, champion, Gate(metric="AP"))
    assert not found.passed
    assert found.gains["AP"].median > 0.1
    assert [reason.split()[0] for reason in found.reasons] == ["AP_tiny"]
    few = gate.decide(challenger, champion, Gate(metric="AP", min_boxes=241))
    assert few.passed
    assert [warning.split()[0] for warning in few.warnings] == ["AP_tiny"]
    assert gate.decide(challenger, champion, Gate(metric="AP", max_regression=0.5)).passed
    assert gate.decide(champion, champion, Gate()).passed
    assert "AP_small" in gate.decide(champion, challenger, Gate()).reasons[0]


def test_a_metric_that_cannot_be_measured_does_not_pass_and_areas_of_files_count() -> None:
    large = [(make_truth([[0, 0, 200, 200]]), make_detections([[0, 0, 200, 200]], [0.9])) for _ in range(60)]
    nothing = [(truth, make_detections([], [])) for truth, _ in large]
    unmeasured = gate.decide(matched(nothing), matched(large), Gate(metric="AP_small"))
    assert not unmeasured.passed
    assert "cannot be measured" in unmeasured.reasons[0]
    both = [[0, 0, 100, 100], [200, 200, 220, 220]]
    good = [(make_truth(both, area=[5000, 400]), make_detections(both, [0.9, 0.8])) for _ in range(80)]
    poor = [(truth, found.take(np.array([1]))) for truth, found in good]
    found = gate.decide(matched(poor), matched(good), Gate(metric="AP_small"))
    assert found.reasons == ("AP_medium falls by 1.0000 (80 objects)",)


def test_a_model_with_no_correct_detection_or_an_unmeasured_metric_is_disqualified() -> None:
    truth = make_truth([[0, 0, 20, 20], [100, 100, 200, 200]])
    small, large = make_detections([[0, 0, 20, 20]], [0.9]), make_detections([[100, 100, 200, 200]], [0.9])
    missed = make_detections([[300, 300, 320, 320]], [0.9])
    assert gate.disqualify(matched([(truth, small), (truth, missed)]), "AP_small") == []
    assert gate.disqualify(matched([(truth, large)]), "AP_small") == ["AP_small is 0: no correct detection in val"]
    assert gate.disqualify(matched([(truth, large)]), "AP") == []
    assert gate.disqualify(matched([(truth, missed)]), "AP") == ["AP is 0: no correct detection in val"]
    assert gate.disqualify(matched([(truth, large)]), "AP_medium") == [
        "AP_medium cannot be measured: no such object in val"
    ]


@pytest.mark.parametrize("metric", ["AR", "AP_huge", "ap", "AP51", "AP_"])
def test_a_gate_takes_only_metrics_that_can_be_resampled(metric: str) -> None:
    with pytest.raises(ValidationError):
        Gate(metric=metric)


def test_buckets_are_those_of_the_audit() -> None:
    assert [name for name in scenes({"tiny": 1, "small": 1, "medium": 1}).ranges if name.startswith("bucket/")] == [
        f"bucket/{name}" for name in boxes.BUCKETS
    ]


def test_a_bucket_has_its_own_ap_and_interval_by_the_side_of_the_boxes(images: Images) -> None:
    truth, found = ([image[place] for image in images] for place in (0, 1))
    by_side = [replace(image, area=boxes.area(image.xyxy)) for image in truth]
    ap = average_precision(by_side, found, NAMES)
    assert ap.AP_by_bucket is not None
    intervals = bootstrap.bucket_intervals(matched(images))
    for bucket, value in ap.AP_by_bucket.items():
        interval = intervals[bucket]
        assert interval is not None and value is not None
        assert interval[0] - 0.05 <= value <= interval[1] + 0.05
        if bucket != "small":  # COCO's range of this name holds the two below as well
            assert value == pytest.approx(ap[f"AP_{bucket}"], abs=0.01)
    only = [replace(image, difficult=boxes.bucket(boxes.side_length(image.xyxy)) != 2) for image in by_side]
    alone = average_precision(only, found, NAMES).AP_by_bucket["small"]
    assert ap.AP_by_bucket["small"] == pytest.approx(alone, abs=0.01)  # a difficult object excuses by another share
    assert abs(ap.AP_by_bucket["small"] - ap.AP_small) > 0.01


def test_a_paired_gain_is_the_difference_on_the_same_resamples(images: Images) -> None:
    worse = [(truth, found.take(np.arange(0, len(found), 2))) for truth, found in images]
    weights = bootstrap.resample(len(images), 200)
    gain = bootstrap.paired_gain(matched(images), matched(worse), "AP", weights)
    ap = [bootstrap.average_precision(matched(part), "AP", weights) for part in (images, worse)]
    assert gain.median == pytest.approx(np.median(ap[0] - ap[1]), abs=1e-6)
    assert gain.interval == pytest.approx(tuple(np.percentile(ap[0] - ap[1], [2.5, 97.5])), abs=1e-6)
    assert bootstrap.paired_gain(matched(images), matched(images), "AP", weights).interval == (0.0, 0.0)
