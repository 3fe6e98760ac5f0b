"""Exports say what the snapshot says, in other trainers' forms, and Speck reads its own again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from etl import cluster, jobs, shard, store
from etl.cli import app
from etl.config import Config
from etl.errors import ConfigError
from etl.export import export
from etl.snapshot import Snapshot
from etl.work import Work

SIDES = ("x0", "y0", "x1", "y1")


@pytest.fixture
def snapshot(dataset: Any, tmp_path: Path) -> Snapshot:
    """With ignore regions: objects at tile borders, and a class that is dropped as ignored."""
    ontology = {"drop": ["bus"], "dropped_as": "ignore"}
    config = dataset.config(tmp_path / "store", ontology=ontology)
    found = Snapshot.open(str(dataset.build(config)["snapshot"]))
    assert any(row["ignore"] for row in found.table("samples").to_pylist())
    return found


def encoded(snapshot: Snapshot, row: dict[str, Any]) -> bytes:
    return store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])


def labels(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((row["category"], *(round(row[side], 2) for side in SIDES)) for row in rows)


def read_back(source: dict[str, Any], home: Path) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Return images and boxes by sample_id, as Speck ingests the export."""
    config = Config.model_validate({"name": "again", "store": str(home), "source": source})
    with cluster.serial() as here:
        work = Work(jobs.ingest(config, here)["work"])
    images = {row["image_id"]: row for row in work.read("ingest", "images").to_pylist()}
    assert work.read("ingest", "rejects").num_rows == 0
    boxes: dict[str, list[dict[str, Any]]] = {Path(row["path"]).stem: [] for row in images.values()}
    for row in work.read("ingest", "annotations").to_pylist():
        boxes[Path(images[row["image_id"]]["path"]).stem].append(row)
    return {Path(row["path"]).stem: row for row in images.values()}, boxes


def assert_painted(snapshot: Snapshot, row: dict[str, Any], data: bytes) -> None:
    """The regions are grey, labelled boxes and all else as they were (but for a second JPEG compression)."""
    before, after = (cv2.imdecode(np.frombuffer(b, np.uint8), 1).astype(int) for b in (encoded(snapshot, row), data))
    grey = np.zeros(before.shape[:2], bool)
    for name, value in (("ignore", True), ("boxes", False)):
        for box in row[name]:
            x0, y0, x1, y1 = (box[side] for side in SIDES)
            grey[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = value
    core = cv2.erode(grey.astype(np.uint8), np.ones((33, 33)), borderValue=1) > 0  # blocks of grey alone
    far = cv2.dilate(grey.astype(np.uint8), np.ones((33, 33))) == 0
    if core.any():
        assert abs(after[core] - 114).max() <= 3
    if far.any():
        assert abs(after - before)[far].mean() < 6


@pytest.mark.parametrize("raw", [False, True])
def test_a_yolo_export_is_read_again_with_equal_boxes(snapshot: Snapshot, tmp_path: Path, raw: bool) -> None:
    answer = export(snapshot, "yolo", tmp_path / "out", raw=raw)
    rows = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist()}
    images, boxes = read_back({"format": "yolo", "images": str(tmp_path / "out"), "split": "source"}, tmp_path / "s")
    assert answer["samples"] == len(images) == len(rows)
    ignoring = 0
    for name, row in rows.items():
        assert labels(boxes[name]) == labels(row["boxes"])
        data = (tmp_path / "out" / images[name]["path"]).read_bytes()
        assert f"images/{row['split']}/" in images[name]["path"]
        if row["ignore"] and not raw:
            ignoring += 1
            assert_painted(snapshot, row, data)
        else:
            assert data == encoded(snapshot, row)
    assert answer["painted"] == ignoring
    assert (ignoring > 0) is not raw


@pytest.mark.parametrize("raw", [False, True])
def test_a_coco_export_marks_ignore_regions_as_crowds_and_paints_nothing(
    snapshot: Snapshot, tmp_path: Path, raw: bool
) -> None:
    assert export(snapshot, "coco", tmp_path / "out", raw=raw)["painted"] == 0
    for split in ("train", "val"):
        rows = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist() if row["split"] == split}
        document = json.loads((tmp_path / "out" / "annotations" / f"instances_{split}.json").read_text())
        names = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
        assert set(names.values()) == set(rows)
        crowds: dict[str, list[Any]] = {name: [] for name in rows}
        for annotation in document["annotations"]:
            if annotation["iscrowd"]:
                crowds[names[annotation["image_id"]]].append([round(side, 6) for side in annotation["bbox"]])
        for name, row in rows.items():
            regions = [
                [round(side, 6) for side in (box["x0"], box["y0"], box["x1"] - box["x0"], box["y1"] - box["y0"])]
                for box in row["ignore"]
            ]
            assert sorted(crowds[name]) == ([] if raw else sorted(regions))
            path = tmp_path / "out" / "images" / split / f"{name}.jpg"
            assert path.read_bytes() == encoded(snapshot, row)
    source = {"format": "coco", "images": str(tmp_path / "out"), "split": "source"}
    _, boxes = read_back(source, tmp_path / "s")
    for row in snapshot.table("samples").to_pylist():
        assert labels([box for box in boxes[row["sample_id"]] if not box["crowd"]]) == labels(row["boxes"])


@pytest.mark.parametrize("raw", [False, True])
def test_a_webdataset_export_holds_every_sample_with_its_record(snapshot: Snapshot, tmp_path: Path, raw: bool) -> None:
    export(snapshot, "webdataset", tmp_path / "out", raw=raw)
    found: dict[str, bytes] = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        found |= shard.members(path.read_bytes())
    rows = snapshot.table("samples").to_pylist()
    assert len(found) == 2 * len(rows)
    for row in rows:
        record = json.loads(found[f"{row['sample_id']}.json"])
        assert labels(record["boxes"]) == labels(row["boxes"])
        data = found[f"{row['sample_id']}.jpg"]
        if row["ignore"] and not raw:
            assert_painted(snapshot, row, data)
        else:
            assert data == encoded(snapshot, row)


def test_the_command_exports_and_refuses_what_is_there_or_unknown(snapshot: Snapshot, tmp_path: Path) -> None:
    command = ["export", snapshot.uri, str(tmp_path / "out"), "--format"]
    result = CliRunner().invoke(app, [*command, "yolo", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["samples"] == snapshot.table("samples").num_rows
    assert CliRunner().invoke(app, [*command, "yolo"]).exit_code == 2  # nothing is written over
    with pytest.raises(ConfigError, match="yolo, coco, webdataset"):
        export(snapshot, "voc", tmp_path / "other")
