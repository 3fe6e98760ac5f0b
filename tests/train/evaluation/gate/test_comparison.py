"""The gains of a model over another by metric, size and site, recomputed image by image."""

from __future__ import annotations

import numpy as np
import pytest

from etl.boxes import BUCKETS
from tests.train.metrics.test_summary import NAMES, make_detections, make_truth, random_image
from train.detections import Detections, GroundTruth
from train.evaluation.gate import comparison
from train.metrics import bootstrap, coco
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.sized_boxes import scaled_images
from train.metrics.summary import average_precision

Images = list[tuple[GroundTruth, Detections]]


def matched(images: Images) -> MatchedDetections:
    return match_images(scaled_images(*zip(*images, strict=True)), len(NAMES), coco.IOU)


def random_pair(number: int) -> tuple[Images, Images]:
    """Two models on the same images: the second misses every third detection of the first."""
    rng = np.random.default_rng(2)
    first = [random_image(rng) for _ in range(number)]
    first = [(t, Detections(d.xyxy, d.score + rng.uniform(0, 0.009, len(d)), d.category, d.window)) for t, d in first]
    second = [(truth, found.take(np.arange(len(found)) % 3 > 0)) for truth, found in first]
    return first, second


def naive(images: Images, drawn: list[int], metric: str) -> float:
    value = average_precision([images[i][0] for i in drawn], [images[i][1] for i in drawn], NAMES)[metric]
    return np.nan if value is None else value


@pytest.mark.parametrize("metric", ["AP", "AP50", "AP_small", "AP_tiny"])
def test_a_gain_is_the_difference_on_the_same_resamples(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 40)
    weights = bootstrap.resample(10, 40)
    monkeypatch.setattr(bootstrap, "resample", lambda *_: weights)
    first, second = random_pair(10)
    ours = comparison.gain(matched(first), matched(second), metric)
    draws = [[image for image, times in enumerate(row) for _ in range(times)] for row in weights.tolist()]
    differences = np.array([naive(first, drawn, metric) - naive(second, drawn, metric) for drawn in draws])
    differences = differences[~np.isnan(differences)]
    assert ours.median == pytest.approx(np.median(differences), abs=1e-6)
    assert ours.interval == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-6)
    assert ours.deviation == pytest.approx(differences.std() * (10 / 9) ** 0.5, abs=1e-6)
    assert ours.median > 0


def test_a_site_is_compared_on_its_own_images() -> None:
    first, second = random_pair(16)
    sites = ["yard", "port"] * 6 + ["tiny site"] * 4
    found = comparison.compare(matched(first), matched(second), "old", "AP", sites)
    assert found.champion == "old"
    assert [*found.buckets] == [*BUCKETS]
    assert sorted(found.sites) == ["port", "yard"]  # four images do not tell how AP varies
    for site, gain in found.sites.items():
        own = [number for number, name in enumerate(sites) if name == site]
        alone = comparison.gain(matched([first[i] for i in own]), matched([second[i] for i in own]), "AP")
        assert gain == alone
        assert gain.objects == sum(int(first[i][0].counted.sum()) for i in own)


def test_one_site_is_no_site_and_what_cannot_be_measured_has_no_gain() -> None:
    truth, found = make_truth([[0, 0, 20, 20]]), make_detections([[0, 0, 20, 20]], [0.9])
    images = [(truth, found)] * 8
    compared = comparison.compare(matched(images), matched(images), "old", "AP_small", ["here"] * 8)
    assert compared.sites == {}
    assert (compared.metric.median, compared.metric.deviation, compared.metric.objects) == (0.0, 0.0, 8)
    large = compared.buckets["large"]
    assert (large.median, large.interval, large.deviation, large.objects) == (None, None, None, 0)
