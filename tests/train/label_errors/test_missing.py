"""Removed labels are found again, small ones too, and better than by a fixed rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from etl.imaging.wide import NO_SETTINGS
from etl.plan import Window
from etl.storage.paths import DatasetPaths
from tests.train.evaluation.test_metrics import make_detections, make_truth
from tests.train.evaluation.test_run import built
from train.detections import Detections, GroundTruth
from train.evaluation.detectors import Detector
from train.evaluation.images import EvalImage
from train.label_errors import missing, run
from train.label_errors.suspects import Suspect
from train.prediction.tiled import MODES

Images = list[tuple[GroundTruth, Detections]]


def scene(rng: np.random.Generator) -> tuple[np.ndarray, Detections]:
    """Boxes of 5 to 60 px on a grid, and what a detector finds: small ones with lower scores, less exactly placed."""
    side = np.exp2(rng.uniform(2.3, 5.9, 40))
    low = np.column_stack([np.arange(40) % 8 * 100, np.arange(40) // 8 * 100]) + rng.uniform(0, 30, (40, 2))
    xyxy = np.column_stack([low, low + side[:, None]])
    seen = rng.random(40) < 0.9
    near = xyxy[seen] + rng.normal(0, 1.0, (int(seen.sum()), 4))
    score = np.clip(0.35 + 0.6 * (side[seen] / 60) ** 0.5 + rng.normal(0, 0.06, len(near)), 0, 1)
    noise = rng.uniform(0, 800, (25, 2))
    false = np.column_stack([noise, noise + np.exp2(rng.uniform(2.3, 5.9, (25, 1)))])
    weak = np.clip(rng.normal(0.25, 0.12, 25), 0, 1)
    return xyxy, make_detections([*near.tolist(), *false.tolist()], [*score, *weak])


def fixed_rule(truth: GroundTruth, found: Detections) -> Detections:
    """The common rule: a score above 0.95, and an IoU below 0.5 with every label."""
    alone = boxes.iou(found.xyxy, truth.xyxy).max(axis=1, initial=0) < 0.5
    return found.take((found.score > 0.95) & alone)


def hits(suspected: Detections, gone: np.ndarray) -> np.ndarray:
    return boxes.nwd(suspected.xyxy[:, None], boxes.as_boxes(gone)).max(axis=1, initial=0) > 0.5


def test_removed_labels_are_found_better_than_by_a_fixed_rule() -> None:
    rng = np.random.default_rng(0)
    whole = [scene(rng) for _ in range(60)]
    held_out: Images = [(make_truth(xyxy.tolist()), found) for xyxy, found in whole[:20]]
    calibration = missing.calibrate(held_out)
    assert calibration.nwd[0] == pytest.approx(calibration.nwd.min(), abs=0.3)
    taken = ours = right = theirs = theirs_right = 0
    for xyxy, found in whole[20:]:
        gone = (rng.random(len(xyxy)) < 0.05) & (boxes.side_length(boxes.as_boxes(xyxy)) < 32)
        truth = make_truth(xyxy[~gone].tolist())
        suspected, likely = missing.find_suspects(truth, found, calibration)
        hit = hits(suspected, xyxy[gone])
        assert ((likely >= 0.5) & (likely <= 1)).all()
        other = fixed_rule(truth, found)
        taken, ours, right = taken + gone.sum(), ours + len(suspected), right + hit.sum()
        theirs, theirs_right = theirs + len(other), theirs_right + hits(other, xyxy[gone]).sum()
    assert right / taken > 0.7 > 0.2 > theirs_right / taken
    assert right / ours > 0.6 > theirs_right / max(theirs, 1)


def test_a_detection_on_an_ignore_region_or_near_a_label_is_no_suspect() -> None:
    calibration = missing.Calibration(np.full(5, 0.6), [np.array([0.0, 1.0])] * 5, [np.array([0.0, 1.0])] * 5)
    truth = make_truth([[0, 0, 10, 10], [100, 100, 200, 200]], ignore=[False, True])
    found = make_detections(
        [[1, 1, 11, 11], [120, 120, 130, 130], [300, 0, 310, 10], [400, 0, 410, 10]], [0.9, 0.9, 0.9, 0.2]
    )
    suspected, likely = missing.find_suspects(truth, found, calibration)
    assert suspected.xyxy.tolist() == [[300, 0, 310, 10]]
    assert likely == pytest.approx([0.9])


@pytest.mark.parametrize("first", [True, False])
def test_equal_scores_have_one_probability_whatever_their_order(first: bool) -> None:
    boxes_of = [[40.0 * n, 0, 40.0 * n + 10, 10] for n in range(80)]
    right = [(n < 40) == first for n in range(80)]
    truth = make_truth([box for box, hit in zip(boxes_of, right, strict=True) if hit])
    calibration = missing.calibrate([(truth, make_detections(boxes_of, [0.9] * 80))])
    assert calibration.probability(np.array([1]), np.array([0.9])) == pytest.approx([0.5])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=40))
def test_shares_rise_with_scores_and_keep_their_mean(values: list[int]) -> None:
    rising = missing._fit_rising(np.array(values, dtype=np.float64))
    assert len(rising) == len(values)
    assert (np.diff(rising) >= -1e-12).all()
    assert rising.sum() == pytest.approx(sum(values))


def test_the_queue_is_written_as_table_coco_json_and_close_ups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, snapshot = built(tmp_path)
    unlabelled = [140.0, 10.0, 160.0, 30.0]

    def load(*_: Any) -> Detector:
        def detect(images: Any) -> Any:
            for image in images:
                truth = image.truth
                rows = [*truth.xyxy[truth.counted].tolist(), unlabelled, [200.0, 5.0, 210.0, 15.0]]
                kinds = [*truth.category[truth.counted].tolist(), 0, 0]
                found = make_detections(rows, [0.9] * (len(rows) - 1) + [0.01], kinds)
                yield dict.fromkeys(MODES, found), dict.fromkeys(MODES, 0.0)

        return Detector(detect, tuple(snapshot.categories), 96, snapshot.plan.tile)

    monkeypatch.setattr(run, "load_detector", load)
    answer = run.find_missing(config, snapshot, f"{config.home}/models/abc")
    queue = pq.read_table(answer.queue).to_pylist()
    assert answer.suspects == len(queue) == 6
    assert [row["rank"] for row in queue] == list(range(1, 7))
    assert {(row["x0"], row["y0"], row["x1"], row["y1"]) for row in queue} == {tuple(unlabelled)}
    assert {row["size"] for row in queue} == {"small"}
    document = json.loads(Path(answer.coco).read_text())
    assert {row["file_name"] for row in document["images"]} == {row["path"] for row in queue}
    assert [row["bbox"] for row in document["annotations"]] == [[140, 10, 20, 20]] * 6
    assert len(list(Path(answer.crops).glob("*.jpg"))) == 6
    assert run.find_missing(config, snapshot, f"{config.home}/models/abc") == answer


def test_a_suspect_of_a_divided_image_is_cropped_from_the_window_of_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = built(tmp_path)
    windows = {"train": Window(0, 0, 150, 220), "val": Window(150, 0, 300, 220)}
    images = {
        ("big", split): EvalImage("big", "big.jpg", (300, 220), window, 1, make_truth([]))
        for split, window in windows.items()
    }
    suspect = Suspect(
        kind="missing", path="big.jpg", image_id="big", split="train", annotation_id=None, category=None,
        suggested_category="bus", box=(20, 20, 30, 30), suggested_box=None, score=0.9, chance=0.8, size="tiny", rank=1,
    )  # fmt: skip
    read: list[Window] = []
    pixels = np.zeros((220, 150, 3), np.uint8)
    monkeypatch.setattr(run, "read_pixels", lambda _, image, _settings: read.append(image.window) or pixels)
    run._write_crops(config, DatasetPaths(config.home).label_errors("m"), [suspect], images, NO_SETTINGS)
    assert read == [windows["train"]]
