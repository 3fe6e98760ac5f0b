"""Results files by hand: which image, category and box each entry means, and the error of a wrong entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from etl.errors import ConfigError
from etl.plan import TilePlan
from tests.train.metrics.test_summary import make_truth
from train.detections import Detections
from train.evaluation import truth_detections
from train.evaluation.results import coco_results
from train.evaluation.results.known_dataset import KnownDataset

ROOT = "/data/images"
PATHS = {"1a": "left/one.jpg", "2b": "left/two.jpg", "3c": "right/two.jpg", "4d": "wide.jpg"}
CATEGORIES = ("car", "bus")


def image_table(*image_ids: str) -> pa.Table:
    """Images of 100 x 80 pixels, of which `wide.jpg` belongs to val from x = 60 on."""
    rows = [
        {
            "image_id": image_id, "path": PATHS[image_id], "width": 100, "height": 80,
            "x0": 60 if image_id == "4d" else 0, "y0": 0, "x1": 100, "y1": 80,
        }
        for image_id in image_ids
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


VAL = image_table("1a", "2b", "4d")
KNOWN = KnownDataset(image_table("1a", "2b", "3c", "4d"), ROOT, CATEGORIES)


def read(folder: Path, document: Any) -> dict[str, Detections]:
    file = folder / "results.json"
    file.write_text(json.dumps(document))
    return coco_results.read_results(str(file), VAL, KNOWN).by_image


def result(**keys: Any) -> dict[str, Any]:
    return {"image_id": "1a", "category_id": "bus", "bbox": [10, 20, 30, 5], "score": 0.5, **keys}


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("1a", "1a"), ("left/one.jpg", "1a"), ("one.jpg", "1a"), ("one", "1a"), (1, "1a"), (2, "2b"),
        (f"{ROOT}/left/two.jpg", "2b"), ("two.jpg", "2b"),
    ],
)  # fmt: skip
def test_an_image_is_named_by_id_path_file_name_or_number_of_the_export(
    tmp_path: Path, name: str | int, image_id: str
) -> None:
    found = read(tmp_path, [result(image_id=name)])
    assert [key for key, detections in found.items() if len(detections)] == [image_id]


@pytest.mark.parametrize("written", [("car", "bus"), (1, 2), (0, 1), ("1", "2"), (1.0, 2.0), ("Car", " BUS")])
def test_a_category_is_named_or_numbered_from_0_or_1(tmp_path: Path, written: tuple[str | int, ...]) -> None:
    assert read(tmp_path, [result(category_id=category) for category in written])["1a"].category.tolist() == [0, 1]


def test_boxes_become_corners_and_images_without_results_have_no_detections(tmp_path: Path) -> None:
    found = read(tmp_path, [result(), result(score=0.75, bbox=[0, 0, 2, 2])])
    assert found["1a"].xyxy.tolist() == [[10, 20, 40, 25], [0, 0, 2, 2]]
    assert found["1a"].score.tolist() == [0.5, 0.75]
    assert found["1a"].window.tolist() == [[0, 0, 100, 80]] * 2
    assert found.keys() == {"1a", "2b", "4d"}
    assert (len(found["2b"]), len(found["4d"])) == (0, 0)


def test_results_of_an_exported_image_that_is_not_in_val_are_skipped(tmp_path: Path) -> None:
    assert not any(len(detections) for detections in read(tmp_path, [result(image_id="right/two.jpg")]).values())


def test_a_divided_image_has_the_boxes_centred_in_its_window_in_pixels_of_the_window(tmp_path: Path) -> None:
    inside, outside = [50, 10, 30, 10], [40, 10, 30, 10]  # centres at x = 65 and x = 55
    found = read(tmp_path, [result(image_id="4d", bbox=inside), result(image_id="4d", bbox=outside)])["4d"]
    assert found.xyxy.tolist() == [[-10, 10, 20, 20]]
    assert found.window.tolist() == [[0, 0, 40, 80]]


def test_a_dataset_file_brings_its_own_names(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 7, "file_name": "two.jpg"}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [result(image_id=7, category_id=3)],
    }
    found = read(tmp_path, document)
    assert found["2b"].category.tolist() == [0]
    assert len(found["1a"]) == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (result(image_id="none.jpg"), r"\[0\]: image_id: found 'none.jpg', expected an id, a path or a file name"),
        (result(category_id="tram"), r"\[0\]: category_id: found 'tram', expected a category .*: car, bus"),
        (result(category_id=3), r"\[0\]: category_id: found 3, expected a category"),
        ({"image_id": "1a"}, r"\[0\]: category_id: found nothing, expected a result with image_id"),
        (result(bbox=[0, 0, 1]), r"\[0\]: bbox, score: found .*, expected numbers"),
        (result(bbox=[0, 0, 1, -1]), r"\[0\]: bbox, score: found .*, expected finite numbers"),
        (result(score=-0.1), r"\[0\]: bbox, score: found .* -0.1, expected .* a score from 0 to 1"),
        (result(score=87), r"\[0\]: bbox, score: found .* 87.0, expected .* a score from 0 to 1"),
        (result(score=float("nan")), r"\[0\]: bbox, score: found .* nan, expected .* a score from 0 to 1"),
        (result(score=[]), r"\[0\]: bbox, score: found .*, expected numbers"),
    ],
)
def test_a_wrong_entry_is_an_error_with_file_entry_key_found_and_expected(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"--detections {tmp_path}/results.json{message}"):
        read(tmp_path, [entry])


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: found no such file, expected `truth` or a COCO results file"):
        coco_results.read_results(str(tmp_path / "none.json"), VAL, KNOWN)


def test_the_ground_truth_leaves_out_what_does_not_count() -> None:
    truth = make_truth([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 1, 1], ignore=[False, True, False])
    found = truth_detections.truth_in_full_image(truth, (100, 80))
    assert found.xyxy.tolist() == [[0, 0, 10, 10], [40, 0, 50, 10]]
    assert found.category.tolist() == [0, 1]
    assert set(found.score.tolist()) == {1.0}


def test_the_ground_truth_in_tiles_is_cut_and_scored_by_its_visible_share() -> None:
    plan = TilePlan(size=64, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
    assert [(window.x0, window.x1) for window in plan.windows(100, 60, 1.0)] == [(0, 64), (48, 100)]
    truth = make_truth([[44, 0, 54, 10]])
    found = truth_detections.truth_in_tiles(truth, (100, 60), plan, [1.0])
    assert found.xyxy.tolist() == [[44, 0, 54, 10], [48, 0, 54, 10]]
    np.testing.assert_allclose(found.score, [1.0, 0.6])
    assert found.window.tolist() == [[0, 0, 64, 60], [48, 0, 100, 60]]
    coarse = truth_detections.truth_in_tiles(truth, (100, 60), plan, [0.5])
    assert coarse.grain is not None
    assert (coarse.grain.tolist(), coarse.score.tolist()) == ([2.0], [1.0])
