"""The root class that some exports add to COCO files is no class of the dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build as jobs, ingest
from etl.snapshots.snapshot import load_plan
from etl.storage.work import WorkDir

CATEGORIES = [
    {"id": 0, "name": "parts", "supercategory": "none"},
    {"id": 1, "name": "bolt", "supercategory": "parts"},
    {"id": 2, "name": "nut", "supercategory": "parts"},
]


def config(folder: Path, *, root_boxes: int = 0, **source: Any) -> Config:
    """A COCO dataset of six images with a box each, and boxes of the root class."""
    images, annotations = [], []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"i{number}.png"), pixels)
        images.append({"id": number, "file_name": f"i{number}.png"})
        kind = 0 if number < root_boxes else 1 + number % 2
        annotations.append({"id": number, "image_id": number, "category_id": kind, "bbox": [9, 9, 30, 20]})
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "a.json").write_text(json.dumps(document))
    settings = {"format": "coco", "images": str(folder), "annotations": str(folder / "a.json"), "max_rejects": 0.5}
    allow = {"allow": ["empty_split", "leaking_splits", "no_objects"]}
    values = {"name": "parts", "store": str(folder / "store"), "source": {**settings, **allow, **source}}
    return Config.model_validate({**values, "tile": {"size": 64}})


def ingested(settings: Config) -> tuple[list[str], list[str], dict[str, int]]:
    """The classes, the codes of the findings, and the rejects."""
    with cluster.serial() as here:
        answer = ingest.run(settings, here, purpose="audit")
    work = WorkDir(answer["work"])
    codes = [row["code"] for row in work.build["findings"]]
    work.delete()
    return work.categories, codes, answer["rejects"]


def test_it_is_left_out_and_named_in_a_finding(tmp_path: Path) -> None:
    categories, codes, _ = ingested(config(tmp_path))
    assert categories == ["bolt", "nut"]
    assert "root_category" in codes


@pytest.mark.parametrize("settings", [{"root_boxes": 1}, {"categories": ["parts", "bolt", "nut"]}])
def test_with_a_box_or_in_source_categories_it_is_a_class(tmp_path: Path, settings: dict[str, Any]) -> None:
    categories, codes, _ = ingested(config(tmp_path, **settings))
    assert categories == ["parts", "bolt", "nut"]
    assert "root_category" not in codes


def test_a_pinned_plan_keeps_it_out(tmp_path: Path) -> None:
    with cluster.serial() as here:
        jobs.build(config(tmp_path), here)
    assert load_plan(config(tmp_path).home).categories == ("bolt", "nut")
    categories, _, rejects = ingested(config(tmp_path, root_boxes=1))
    assert (categories, rejects) == (["bolt", "nut"], {"unknown_category": 1})
