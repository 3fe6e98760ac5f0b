"""A model that may never be a champion: nothing to judge by, nothing found, or no better than not looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from etl.config import Config, Gate, load
from etl.plan import TilePlan, Window
from tests.train.metrics.test_summary import make_detections, make_truth
from train.detections import Detections, no_detections
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.gate import comparison, eligibility, trivial
from train.evaluation.images import EvalImage

SIDE, IMAGES = 200, 30
NAMES = ("car", "bus")
PLAN = TilePlan(size=128, overlap=0.25, min_visibility=0.4, scales=(1.0,))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "made.yaml"
    file.write_text(f"name: made\nstore: {tmp_path}\nsource: {{format: yolo, images: .}}\n")
    return load(file)


def images_of(rows: Sequence[Sequence[Sequence[float]]]) -> list[EvalImage]:
    window = Window(0, 0, SIDE, SIDE)
    return [
        EvalImage(f"{n}", f"{n}.jpg", (SIDE, SIDE), window, 1, make_truth(own, [n % 2] * len(own)))
        for n, own in enumerate(rows)
    ]


def reasons(config: Config, images: list[EvalImage], detections: list[Detections], metric: str = "AP") -> list[str]:
    detector = Detector(lambda _: ({}, {}), NAMES, SIDE, PLAN)
    detected = DetectedImages(images, detector, {"combined": detections}, {"combined": 0.0})
    matched = comparison.match(detected, detections, "source")
    return eligibility.disqualify(config, detected, matched, metric, [str(n % 3) for n in range(len(images))])


def scattered(seed: int, side: float = 16, number: int = 3) -> list[list[list[float]]]:
    """Objects at random places."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, SIDE - side, (IMAGES, number, 2))
    return [[[x, y, x + side, y + side] for x, y in image] for image in corners.tolist()]


def found(rows: Sequence[Sequence[Sequence[float]]], score: float = 0.9) -> list[Detections]:
    return [make_detections(own, [score] * len(own), [n % 2] * len(own)) for n, own in enumerate(rows)]


def test_a_model_that_finds_objects_where_they_are_may_be_a_champion(config: Config) -> None:
    rows = scattered(0)
    assert reasons(config, images_of(rows), found(rows)) == []
    half = [own[:1] if n % 2 else [] for n, own in enumerate(rows)]
    assert reasons(config, images_of(rows), found(half)) == []


def test_nothing_to_judge_by_or_nothing_found_is_never_a_champion(config: Config) -> None:
    rows = scattered(0)
    nothing = [no_detections()] * IMAGES
    assert reasons(config, images_of([[]] * IMAGES), found(rows)) == ["AP cannot be measured: no such object in val"]
    few = [own if n < 16 else [] for n, own in enumerate(rows)]
    assert reasons(config, images_of(few), found(few)) == [
        "AP is measured on 48 objects, fewer than gate.min_boxes (50): too few to judge by"
    ]
    assert reasons(config, images_of(rows), found(rows), "AP_large") == [
        "AP_large cannot be measured: no such object in val"
    ]
    assert reasons(config, images_of(rows), nothing) == ["AP is 0: no correct detection in val"]


def test_boxes_at_random_places_are_no_better_than_without_looking(config: Config) -> None:
    rows = scattered(0, side=60)
    (reason,) = reasons(config, images_of(rows), found(scattered(1, side=60, number=8)))
    assert "is no better, beyond luck, than that of a detector that does not look at the image" in reason
    assert reason.endswith("by its own detections on other images")


def test_the_same_boxes_in_every_image_are_no_better_than_without_looking(config: Config) -> None:
    """Labels that are tags: the whole image is the box."""
    whole = [[[0.0, 0.0, SIDE - n % 5, SIDE - n % 3]] * 2 for n in range(IMAGES)]
    both = [make_detections([[0, 0, SIDE, SIDE]] * 2, [0.9, 0.8], [0, 1]) for _ in range(IMAGES)]
    assert reasons(config, images_of(whole), both)
    alone = images_of(whole)[:1]  # no other image to exchange detections with
    (reason,) = reasons(config.model_copy(update={"gate": Gate(min_boxes=1)}), alone, both[:1])
    assert reason.endswith("by the same boxes in every image")
    right = found([own[:1] for own in whole])  # tells the classes apart
    assert reasons(config, images_of(whole), right) == []


def test_detections_are_exchanged_with_an_image_of_another_site_at_the_same_place() -> None:
    sizes = [(100, 100), (200, 50), (100, 100), (200, 50)]
    own = [make_detections([[10.0 * n, 10, 10.0 * n + 10, 20]], [0.5]) for n in range(4)]
    exchanged = trivial.exchange_images(own, sizes, ["a", "b", "a", "b"])
    assert exchanged is not None
    assert exchanged[0].xyxy.tolist() == [[5, 20, 10, 40]]  # of image 1, from 200 x 50
    assert exchanged[1].xyxy.tolist() in ([[0, 5, 20, 10]], [[40, 5, 60, 10]])  # of image 0 or 2
    assert trivial.exchange_images(own[:1], sizes[:1], ["a"]) is None


def test_the_constant_box_is_the_one_that_matches_objects_in_most_images() -> None:
    truth = [make_truth([[0, 0, 10, 10], [50, 50, 70, 70]], [0, 0]), make_truth([[51, 50, 71, 70]], [0])]
    truth += [make_truth([[100, 100, 140, 140]], [0]), make_truth([[0, 0, 5, 5]], [1])]
    first, *others = trivial.constant_boxes(truth, [(100, 100), (100, 100), (200, 200), (100, 100)], 3)
    assert first.xyxy.tolist() == [[50, 50, 70, 70], [0, 0, 5, 5]]
    assert (first.score.tolist(), first.category.tolist()) == ([0.75, 0.25], [0, 1])
    assert others[1].xyxy.tolist()[0] == [100, 100, 140, 140]
    assert len(trivial.constant_boxes([make_truth([])], [(10, 10)], 1)[0]) == 0
