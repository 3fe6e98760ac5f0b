"""Removed labels are found again, small ones too, and better than by a fixed rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from tests.train.label_errors.scenes import draw_scene, judge
from tests.train.metrics.test_summary import make_detections, make_truth
from train.detections import Detections
from train.label_errors import chances
from train.label_errors.evidence import find_places, one_each
from train.label_errors.run import LEAST


def fixed_rule(labels: np.ndarray, found: Detections) -> np.ndarray:
    """The common rule: a score above 0.95, and an IoU below 0.5 with every label."""
    alone = boxes.iou(found.xyxy, labels).max(axis=1, initial=0) < 0.5
    return found.xyxy[(found.score > 0.95) & alone]


def hits(suspected: np.ndarray, gone: np.ndarray) -> np.ndarray:
    return boxes.nwd(boxes.as_boxes(suspected)[:, None], boxes.as_boxes(gone)).max(axis=1, initial=0) > 0.5


def test_removed_labels_are_found_better_than_by_a_fixed_rule() -> None:
    rng = np.random.default_rng(0)
    scenes, gone = [], []
    for _ in range(40):
        scene = draw_scene(rng)
        small = boxes.side_length(scene.xyxy) < 32
        removed = (rng.random(len(small)) < 0.05) & small
        scenes.append(replace(scene, xyxy=scene.xyxy[~removed], category=scene.category[~removed]))
        gone.append(scene.xyxy[removed])
    kept, _ = judge(scenes).suspects(("missing",), LEAST)
    taken = ours = right = theirs = theirs_right = 0
    for number, (scene, removed) in enumerate(zip(scenes, gone, strict=True)):
        suspected = [row.suspect.box for row in kept if row.suspect.image_id == f"image{number}"]
        other = fixed_rule(scene.xyxy, scene.detections)
        taken, ours, right = taken + len(removed), ours + len(suspected), right + hits(suspected, removed).sum()
        theirs, theirs_right = theirs + len(other), theirs_right + hits(other, removed).sum()
    assert right / taken > 0.7 > 0.2 > theirs_right / taken
    assert right / ours > 0.6 > theirs_right / max(theirs, 1)


def test_a_detection_on_an_ignore_region_or_on_a_label_is_no_place_without_one() -> None:
    truth = make_truth([[0, 0, 10, 10], [100, 100, 200, 200]], ignore=[False, True])
    found = make_detections(
        [[1, 1, 11, 11], [120, 120, 130, 130], [300, 0, 310, 10], [400, 0, 410, 10]], [0.9, 0.9, 0.9, 0.2]
    )
    places = find_places(truth, found)
    assert places.detections.xyxy[places.unlabelled].tolist() == [[300, 0, 310, 10], [400, 0, 410, 10]]
    assert places.detections.xyxy[places.labelled].tolist() == [[1, 1, 11, 11]]


@pytest.mark.parametrize("part", [[10, 10, 20, 20], [2, 0, 38, 38]])
def test_a_detection_inside_a_labelled_object_is_no_place_without_a_label(part: list[float]) -> None:
    truth = make_truth([[0, 0, 40, 40]])
    assert not find_places(truth, make_detections([part], [0.9])).unlabelled.any()


def test_a_place_is_listed_once_with_its_best_class() -> None:
    found = make_detections([[0, 0, 10, 10], [0, 1, 10, 11]], [0.4, 0.6], [0, 1])
    places = find_places(make_truth([]), found)
    assert places.detections.category.tolist() == [1]
    assert places.unlabelled.tolist() == [True]


def test_an_object_is_suspected_once() -> None:
    """Detections beside and inside a better one are of its object; those of another image are not."""
    places = [[0, 0, 10, 10], [4, 2, 14, 12], [0, 0, 40, 40], [9, 9, 30, 30], [60, 0, 70, 10], [0, 0, 10, 10]]
    odds, image = np.array([0.5, 0.9, -0.3, -0.4, -2.0, 0.4]), np.array([0, 0, 0, 0, 0, 1])
    assert sorted(one_each(boxes.as_boxes(places), odds, image).tolist()) == [1, 4, 5]


def test_detections_at_one_removed_label_are_one_suspect() -> None:
    rng = np.random.default_rng(1)
    scenes = [draw_scene(rng) for _ in range(6)]
    removed = scenes[0].xyxy[:3]
    beside = removed + (removed[:, 2:] - removed[:, :2])[:, [0, 1, 0, 1]] * [0.3, 0.2, 0.3, 0.2]
    found = scenes[0].detections
    twice = make_detections(
        [*found.xyxy.tolist(), *beside.tolist()], [*found.score, *[0.8] * 3], [*found.category, *scenes[0].category[:3]]
    )
    scenes[0] = replace(scenes[0], xyxy=scenes[0].xyxy[3:], category=scenes[0].category[3:], detections=twice)
    kept, expected = judge(scenes).suspects(("missing",), 0.0)
    here = np.array([row.suspect.box for row in kept if row.suspect.image_id == "image0"])
    chance = np.array([row.suspect.chance for row in kept if row.suspect.image_id == "image0"])
    for box in removed:
        assert (chance[boxes.iou(box[None], here)[0] > 0.2] > 0).sum() == 1
    assert expected["missing"] == pytest.approx(sum(row.suspect.chance for row in kept), abs=0.06)


@pytest.mark.parametrize("first", [True, False])
def test_equal_odds_have_one_chance_whatever_their_order(first: bool) -> None:
    errors, labels = np.zeros(40), np.concatenate([np.zeros(40), [-1.0] if first else [1.0]])
    curve = chances.fit(errors, labels)
    assert len(set(np.round(curve.chance[curve.odds == 0], 9))) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=40))
def test_shares_rise_with_scores_and_keep_their_mean(values: list[int]) -> None:
    rising = chances.fit_rising(np.array(values, dtype=np.float64))
    assert len(rising) == len(values)
    assert (np.diff(rising) >= -1e-12).all()
    assert rising.sum() == pytest.approx(sum(values))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3])
def test_the_share_of_errors_is_estimated(share: float) -> None:
    rng = np.random.default_rng(5)
    errors, right = rng.normal(3, 1, 3000), rng.normal(-1, 1, round(3000 * (1 - share)))
    labels = np.concatenate([right, rng.normal(3, 1, round(3000 * share))])
    curve = chances.fit(errors, labels)
    assert curve.share == pytest.approx(share, rel=0.2, abs=0.004)
    assert curve.chance_at(labels).sum() == pytest.approx(3000 * share, rel=0.25, abs=15)
