"""A model compared with the champion: verdicts, category names of the other model, and the promotion itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.config import Config, load
from etl.errors import StoreError
from etl.evaluation import GateVerdict
from etl.lifecycle import champion as promotions
from etl.plan import TilePlan, Window
from etl.storage import store
from tests.train.metrics.test_summary import make_detections, make_truth
from train.detections import Detections
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.gate import promotion
from train.evaluation.images import EvalImage

PLAN = TilePlan(size=128, overlap=0.25, min_visibility=0.4, scales=(1.0,))
ROWS = [[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(4)]


def rows_of(image: int) -> list[list[float]]:
    """The objects of an image: none is where one of the next image is."""
    down = 11.0 * (image % 11)
    return [[x0, y0 + down, x1, y1 + down] for x0, y0, x1, y1 in ROWS]


IMAGES = [
    EvalImage(f"{n}", f"{n}.jpg", (128, 128), Window(0, 0, 128, 128), 1, make_truth(rows_of(n), [0, 1, 0, 1]))
    for n in range(40)
]


class SnapshotOfSites:
    """Every image is of one of two sites."""

    id = "s1"

    @staticmethod
    def table(_: str) -> pa.Table:
        return pa.table({"image_id": [image.image_id for image in IMAGES], "group": ["port", "yard"] * 20})


def detected(matched: int, categories: tuple[str, ...] = ("car", "bus")) -> DetectedImages:
    """The images with exact detections of the first objects of each."""
    numbers = [categories.index(name) for name in ("car", "bus", "car", "bus")][:matched]
    detections = [make_detections(rows_of(n)[:matched], [0.9] * matched, numbers) for n in range(len(IMAGES))]
    detector = Detector(lambda _: ({}, {}), categories, 128, PLAN)
    return DetectedImages(IMAGES, detector, {"combined": detections}, {"combined": 0.0})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "made.yaml"
    file.write_text(f"name: made\nstore: {tmp_path}\nsource: {{format: yolo, images: .}}\ngate: {{metric: AP}}\n")
    config = load(file)
    for name in ("old", "new"):
        write_model(config, name)
    return config


def write_model(config: Config, name: str) -> None:
    store.write_json(f"{config.home}/models/{name}/model.json", {"id": name, "snapshot": "s1"})
    store.write_bytes(f"{config.home}/models/{name}/weights.safetensors", b"")


def compare(config: Config, monkeypatch: Any, matched: int, of_champion: DetectedImages) -> GateVerdict:
    """The verdict on `new`; the champion's detections are made without a model."""
    loaded = []
    monkeypatch.setattr(promotion, "load_detector", lambda *given: loaded.append(given[-1]) or of_champion.detector)
    monkeypatch.setattr(promotion, "load_ground_truth", lambda *_: ((), ()))
    monkeypatch.setattr(promotion, "build_eval_images", lambda *_: IMAGES)
    monkeypatch.setattr(promotion, "detect_all", lambda *_: of_champion)
    verdict = promotion.compare(config, SnapshotOfSites(), f"{config.home}/models/new", detected(matched))
    assert loaded == [f"{config.home}/models/{name}" for name in verdict.champions[::-1]]
    return verdict


def test_the_first_model_with_a_correct_detection_passes_without_a_comparison(config: Config, monkeypatch: Any) -> None:
    verdict = compare(config, monkeypatch, 1, detected(4))
    assert (verdict.champion, verdict.passed, verdict.promoted) == (None, True, True)
    assert (verdict.reasons, verdict.warnings, verdict.gains, verdict.metric) == ((), (), {}, "AP")


def test_a_model_without_a_correct_detection_does_not_pass(config: Config, monkeypatch: Any) -> None:
    verdict = compare(config, monkeypatch, 0, detected(4))
    assert (verdict.passed, verdict.promoted) == (False, False)
    assert verdict.reasons == ("AP is 0: no correct detection in val",)


def test_the_champion_itself_passes_and_is_not_promoted_again(config: Config, monkeypatch: Any) -> None:
    promotions.promote(config.home, "new", "by hand", over=None)
    verdict = compare(config, monkeypatch, 4, detected(4))
    assert (verdict.champion, verdict.passed, verdict.promoted) == ("new", True, False)
    assert verdict.reasons == ("it is the champion",)


@pytest.mark.parametrize(("matched", "promoted"), [(4, True), (2, False), (1, False)])
def test_a_model_is_promoted_only_if_it_is_better_than_the_champion(
    config: Config, monkeypatch: Any, matched: int, promoted: bool
) -> None:
    promotions.promote(config.home, "old", "by hand", over=None)
    verdict = compare(config, monkeypatch, matched, detected(2))
    assert (verdict.champion, verdict.passed, verdict.promoted) == ("old", promoted, promoted)
    median = verdict.gains["AP"].median
    assert median is not None
    assert (median > 0, median < 0) == (matched > 2, matched < 2)


def test_a_model_is_compared_with_every_champion_of_the_year_that_is_still_there(
    config: Config, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name, predecessor in (("oldest", None), ("gone", "oldest"), ("old", "gone")):
        write_model(config, name)
        promotions.promote(config.home, name, "better", over=predecessor, by="gate")
    Path(config.home, "models", "gone", "model.json").unlink()
    verdict = compare(config, monkeypatch, 4, detected(2))
    assert (verdict.champion, verdict.champions, verdict.metric) == ("old", ("oldest", "old"), "AP")
    assert "the former champion gone was deleted and is not compared with" in caplog.text


def test_the_sites_of_a_comparison_are_the_groups_of_the_images(config: Config, monkeypatch: Any) -> None:
    promotions.promote(config.home, "old", "by hand", over=None)
    verdict = compare(config, monkeypatch, 4, detected(2))
    assert {name: gain.objects for name, gain in verdict.sites.items()} == {"port": 80, "yard": 80}
    assert all(gain.median is not None and gain.median > 0 for gain in verdict.sites.values())


def test_a_deleted_champion_is_named_with_the_remedy(config: Config, monkeypatch: Any) -> None:
    promotions.promote(config.home, "old", "by hand", over=None)
    Path(config.home, "models", "old", "model.json").unlink()
    with pytest.raises(StoreError, match="champion old was deleted: promote another model with `speck promote`"):
        compare(config, monkeypatch, 4, detected(2))


def test_the_champions_categories_are_matched_by_name_and_the_others_dropped(config: Config, monkeypatch: Any) -> None:
    promotions.promote(config.home, "old", "by hand", over=None)
    verdict = compare(config, monkeypatch, 4, detected(4, ("bus", "tram", "car")))
    assert verdict.gains["AP"].median == 0.0
    found = make_detections(ROWS, [0.9, 0.8, 0.7, 0.6], [2, 1, 0, 2])
    renumbered: list[Detections] = promotion.renumber([found], ("bus", "tram", "car"), ("car", "bus"))
    assert renumbered[0].category.tolist() == [0, 1, 0]
    assert renumbered[0].score.tolist() == [0.9, 0.7, 0.6]
    assert renumbered[0].xyxy.tolist() == [ROWS[0], ROWS[2], ROWS[3]]


def verdict_of(**keys: Any) -> GateVerdict:
    values = {"champion": None, "passed": True, "promoted": True, "reasons": (), "warnings": (), **keys}
    return GateVerdict(**values)


def test_a_promotion_is_recorded_with_its_reason(config: Config) -> None:
    promotion.promote_if_passed(f"{config.home}/models/old", verdict_of())
    promotion.promote_if_passed(f"{config.home}/models/new", verdict_of(champion="old"))
    entries = [(row["model"], row["predecessor"], row["reason"]) for row in promotions.history(config.home)]
    assert entries == [
        ("old", None, "the first model to pass the gate"),
        ("new", "old", "passes the gate, compared with old"),
    ]


def test_an_evaluation_of_the_champion_writes_champion_json_that_a_killed_one_did_not(config: Config) -> None:
    promotions.promote(config.home, "new", "better", over=None)
    store.delete(f"{config.home}/champion.json")
    promotion.promote_if_passed(f"{config.home}/models/new", verdict_of(champion="new", promoted=False))
    assert store.read_json(f"{config.home}/champion.json") == promotions.history(config.home)[-1]
    assert len(promotions.history(config.home)) == 1


def test_a_refused_model_is_logged_with_the_reasons_and_promotes_nothing(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    refused = verdict_of(passed=False, promoted=False, reasons=("AP falls by 0.1", "AP_tiny falls by 0.2"))
    with caplog.at_level(logging.WARNING, "speck"):
        promotion.promote_if_passed(f"{config.home}/models/new", refused)
    assert "new is not promoted: AP falls by 0.1; AP_tiny falls by 0.2" in caplog.text
    assert promotions.history(config.home) == []


def test_a_verdict_on_a_champion_that_was_replaced_meanwhile_is_an_error(config: Config) -> None:
    promotions.promote(config.home, "old", "by hand", over=None)
    with pytest.raises(StoreError, match="the champion changed from none to old"):
        promotion.promote_if_passed(f"{config.home}/models/new", verdict_of())
