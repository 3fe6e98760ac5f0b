"""The error for a split that a snapshot lacks: the cause is the split, its share, or the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl import schema
from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

FLIGHTS = [f"flight{number}/{letter}.jpg" for number in range(5) for letter in "ab"]


def snapshot(folder: Path, splits: dict[str, str], **source: Any) -> Snapshot:
    """Write the table of images by path and split, and open it as a snapshot."""
    uri = str(folder / "cars" / "snapshots" / "abc")
    rows = [
        {"image_id": path, "path": path, "sha256": path, "group": "g", "sequence": path, "split": split}
        for path, split in splits.items()
    ]
    store.write_table(f"{uri}/images.parquet", schema.table(schema.IMAGES, rows))
    values = {"name": "cars", "store": str(folder), "source": {"format": "yolo", "images": "x", **source}}
    config = Config.model_validate(values).resolved()
    store.write_json(f"{uri}/manifest.json", {"id": "abc", "categories": ["car"], "config": config, "plan": None})
    return Snapshot.open(uri)


def test_a_split_without_images_names_its_remedies(tmp_path: Path) -> None:
    splits = {**dict.fromkeys(FLIGHTS, "train"), "x.jpg": "left_out"}
    error = missing_split_error(snapshot(tmp_path, splits), "val")
    assert error.key == "source.split"
    assert "no val image in snapshot abc (left_out 1, train 10)" in error.found
    assert "Add images of other scenes" in error.expected


def test_the_remedy_has_a_pattern_of_this_dataset(tmp_path: Path) -> None:
    error = missing_split_error(snapshot(tmp_path, dict.fromkeys(FLIGHTS, "train")), "val")
    assert "source.group: '^([^/]+)/', which makes 5 groups here" in error.expected


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_that_nobody_asked_for_is_not_blamed_on_groups(tmp_path: Path, split: str) -> None:
    splits = dict.fromkeys(FLIGHTS, "train")
    error = missing_split_error(snapshot(tmp_path, splits, split={split: 0.0}), split)
    assert (error.key, error.expected) == (f"source.split.{split}", "a share above 0 and a new build")


def test_a_split_of_the_dataset_itself_is_mended_without_a_group(tmp_path: Path) -> None:
    splits = dict.fromkeys(FLIGHTS, "train")
    error = missing_split_error(snapshot(tmp_path, splits, split="source"), "val")
    assert "Remove source.split" in error.expected and "source.group" not in error.expected


@pytest.mark.parametrize("split", ["train", "divided"])
def test_images_without_samples_have_no_labelled_box(tmp_path: Path, split: str) -> None:
    error = missing_split_error(snapshot(tmp_path, {"a.jpg": split, "b.jpg": "val"}), "train")
    assert error.key == "source.annotations"
    assert error.found == "no labelled box in the 1 train image of snapshot abc"


def test_divided_images_are_not_of_a_split_without_a_share(tmp_path: Path) -> None:
    error = missing_split_error(snapshot(tmp_path, {"a.jpg": "divided"}, split={"val": 0.2, "test": 0.0}), "test")
    assert error.found == "no test image in snapshot abc (divided 1)"


def test_the_ground_truth_of_a_divided_image_has_no_window_of_a_split_without_a_share(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((600, 4000, 3), np.uint8))
    (folder / "a.txt").write_text("\n".join(f"0 {(number + 0.5) / 40} 0.5 0.005 0.05" for number in range(40)))
    source = {"format": "yolo", "images": str(folder), "categories": ["car"], "split": {"val": 0.3, "test": 0.0}}
    config = Config.model_validate({"name": "big", "store": str(tmp_path / "store"), "source": source})
    with cluster.serial() as here:
        built = Snapshot.open(build.build(config, here).snapshot)
    assert built.table("images")["split"].to_pylist() == [schema.DIVIDED]
    assert [load_ground_truth(built, split)[0].num_rows for split in ("train", "val", "test")] == [1, 1, 0]
