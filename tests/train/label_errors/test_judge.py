"""Planted errors of each kind are found, with chances that are right on average; labels without errors give none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etl import boxes
from etl.review import KINDS, Kind
from tests.train.label_errors.scenes import CATEGORIES, draw_scene, judge, judged, plant
from tests.train.metrics.test_summary import make_detections
from train.label_errors.judge import group_lookalikes, make_judge
from train.label_errors.suspects import Suspect, rank

IMAGES = 30


@pytest.fixture(scope="module")
def planted() -> tuple[list[Suspect], dict[str, float], dict[tuple[str, str], np.ndarray]]:
    """Suspects from a chance of 0.05 on and expected errors, with 5 % of errors of each kind; the errors by image."""
    rng = np.random.default_rng(1)
    scenes, errors = [], {}
    for number in range(IMAGES):
        scene, of_scene = plant(rng, draw_scene(rng), 0.05)
        scenes.append(scene)
        errors |= {(kind, f"image{number}"): of_scene[kind] for kind in KINDS}
    kept, expected = judge(scenes).suspects(KINDS, 0.05)
    return rank(row.suspect for row in kept), dict(expected), errors


def is_right(suspect: Suspect, errors: dict[tuple[str, str], np.ndarray]) -> bool:
    same = boxes.iou(boxes.as_boxes([suspect.box]), boxes.as_boxes(errors[suspect.kind, suspect.image_id]))
    return bool(same.max(initial=0) > (0.4 if suspect.kind == "missing" else 0.99))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_errors_come_first(planted: tuple, kind: str) -> None:
    suspects, expected, errors = planted
    own = [suspect for suspect in suspects if suspect.kind == kind]
    number = sum(len(rows) for (of_kind, _), rows in errors.items() if of_kind == kind)
    right = [is_right(suspect, errors) for suspect in own]
    assert sum(right[:50]) >= 0.8 * min(50, len(right))
    assert sum(right[: 2 * number]) >= 0.5 * number
    assert 0.4 * number <= expected[kind] <= 1.6 * number


def test_the_chance_of_a_suspect_is_the_share_of_errors(planted: tuple) -> None:
    suspects, _, errors = planted
    chance = np.array([suspect.chance for suspect in suspects])
    right = np.array([is_right(suspect, errors) for suspect in suspects])
    bins = np.minimum((chance * 10).astype(int), 9)
    error = sum(abs((chance - right)[bins == at].sum()) for at in range(10)) / len(chance)
    assert error <= 0.1


def test_a_suspect_names_what_the_detector_found(planted: tuple) -> None:
    suspects, _, errors = planted
    for suspect in suspects:
        if suspect.kind == "swapped":
            assert suspect.suggested_category not in (None, suspect.category)
        if suspect.kind == "misplaced" and is_right(suspect, errors):
            assert suspect.suggested_box is not None and suspect.suggested_category == suspect.category
            assert 0.05 < boxes.iou(boxes.as_boxes([suspect.box]), boxes.as_boxes([suspect.suggested_box]))[0, 0] < 0.6
        assert (suspect.annotation_id is None) == (suspect.category is None) == (suspect.kind == "missing")
        assert (suspect.suggested_category is None) == (suspect.kind == "spurious")


def test_labels_without_errors_give_few_suspects() -> None:
    rng = np.random.default_rng(2)
    scenes = [draw_scene(rng) for _ in range(IMAGES)]
    kept, expected = judge(scenes).suspects(KINDS, 0.5)
    assert len(kept) <= 0.005 * sum(len(scene.xyxy) for scene in scenes)
    assert sum(expected.values()) <= 0.02 * sum(len(scene.xyxy) for scene in scenes)


def test_only_the_kinds_asked_for_are_listed() -> None:
    rng = np.random.default_rng(1)
    scenes = [plant(rng, draw_scene(rng), 0.05)[0] for _ in range(10)]
    kept, expected = judge(scenes).suspects(("swapped",), 0.05)
    assert {row.suspect.kind for row in kept} == {"swapped"} == set(expected)


def test_images_that_the_model_was_trained_on_calibrate_nothing() -> None:
    rng = np.random.default_rng(3)
    scenes = [plant(rng, draw_scene(rng), 0.05)[0] for _ in range(12)]
    held_out = judge(scenes).suspects(KINDS, 0.3)[0]
    perfect = [make_detections(row.xyxy.tolist(), [0.99] * len(row.xyxy), row.category.tolist()) for row in scenes]
    learned = [replace(scene, detections=found) for scene, found in zip(scenes, perfect, strict=True)]
    both = {row.suspect.suspect_id: row.suspect.chance for row in judge(scenes, learned).suspects(KINDS, 0.0)[0]}
    for row in held_out:
        assert both[row.suspect.suspect_id] == pytest.approx(row.suspect.chance)


def test_suspects_that_look_alike_form_a_group() -> None:
    rng = np.random.default_rng(4)
    made = judge([plant(rng, draw_scene(rng), 0.05)[0] for _ in range(20)])
    kept, _ = made.suspects(("missing",), 0.1)
    grouped = group_lookalikes(kept, made)
    assert [row.suspect_id for row in rank(grouped)] == [row.suspect_id for row in rank(row.suspect for row in kept)]
    ids = {row.suspect_id for row in grouped}
    for row in grouped:
        if row.lookalike is not None:
            own = [other for other in grouped if other.lookalike == row.lookalike]
            assert len(own) > 1 and row.lookalike in ids
            assert len({(other.kind, other.suggested_category) for other in own}) == 1
    assert any(row.lookalike for row in grouped)


@pytest.mark.parametrize("kind", ["swapped", "misplaced", "spurious"])
def test_detections_of_other_images_make_no_suspects(caplog: pytest.LogCaptureFixture, kind: Kind) -> None:
    rng = np.random.default_rng(7)
    scenes = [draw_scene(rng) for _ in range(8)]
    elsewhere = [
        replace(scene, detections=other.detections, pixels=other.pixels)
        for scene, other in zip(scenes, [*scenes[1:], scenes[0]], strict=True)
    ]
    found, expected = judge(elsewhere).suspects([kind], 0.1)
    assert (found, expected[kind]) == ([], 0.0)
    assert f"no {kind} labels are listed" in caplog.text


@pytest.mark.parametrize(("classes", "warned"), [(1, False), (3, True)])
def test_chances_of_a_swap_are_unreliable_only_where_there_are_other_classes(
    caplog: pytest.LogCaptureFixture, classes: int, warned: bool
) -> None:
    scene = draw_scene(np.random.default_rng(0))
    few = replace(scene, xyxy=scene.xyxy[:9], category=np.zeros(9, dtype=np.int64))
    one_class = replace(few.detections, category=np.zeros(len(few.detections), dtype=np.int64))
    image = judged(0, replace(few, detections=one_class))
    made = make_judge([image], CATEGORIES[:classes], 0)
    made.add(image, few.pixels)
    made.suspects(["swapped"], 0.1)
    assert ("chances of swapped labels are unreliable" in caplog.text) == warned
