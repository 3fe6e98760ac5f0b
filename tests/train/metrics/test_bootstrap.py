"""Bootstrap resamples give exactly the average precision of the drawn images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etl import boxes
from tests.train.metrics.test_summary import NAMES, make_detections, make_truth, random_image
from train.detections import Detections, GroundTruth
from train.metrics import bootstrap, coco
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.sized_boxes import scaled_images
from train.metrics.summary import average_precision

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
    few = (len(images) / (len(images) - 1)) ** 0.5
    assert gain.deviation == pytest.approx((ap[0] - ap[1]).std() * few, abs=1e-6)
    for estimate, part, values in ((gain.model, images, ap[0]), (gain.other, worse, ap[1])):
        whole = average_precision([truth for truth, _ in part], [found for _, found in part], NAMES)
        assert estimate is not None and estimate.value == pytest.approx(whole.AP, abs=1e-6)
        assert estimate.interval == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-6)
    assert gain.objects == sum(int(truth.counted.sum()) for truth, _ in images)
    assert bootstrap.paired_gain(matched(images), matched(images), "AP", weights).interval == (0.0, 0.0)
