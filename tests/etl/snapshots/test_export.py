"""Exports contain the samples of the snapshot in each format, and Speck reads them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from etl.cli.app import app
from etl.config import Config, load
from etl.errors import ConfigError, StoreError
from etl.execution import cluster
from etl.jobs import build, ingest
from etl.snapshots.export import export
from etl.snapshots.snapshot import Snapshot
from etl.storage import shard, store
from etl.storage.work import WorkDir

SIDES = ("x0", "y0", "x1", "y1")


@pytest.fixture
def snapshot(dataset: Any, tmp_path: Path) -> Snapshot:
    """A snapshot with ignore regions: objects cut by tile borders, and a class dropped as ignore."""
    ontology = {"drop": ["bus"], "dropped_as": "ignore"}
    config = dataset.config(tmp_path / "store", ontology=ontology)
    snapshot = Snapshot.open(str(dataset.build(config)["snapshot"]))
    assert any(row["ignore"] for row in snapshot.table("samples").to_pylist())
    return snapshot


def read_jpeg(snapshot: Snapshot, row: dict[str, Any]) -> bytes:
    return store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])


def labels(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((row["category"], *(round(row[side], 2) for side in SIDES)) for row in rows)


def read_back(source: dict[str, Any], home: Path) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Ingest an export; return its images and boxes by sample_id."""
    config = Config.model_validate({"name": "again", "store": str(home), "source": source})
    with cluster.serial() as here:
        work = WorkDir(ingest.run(config, here)["work"])
    images = {row["image_id"]: row for row in work.read("ingest", "images").to_pylist()}
    assert work.read("ingest", "rejects").num_rows == 0
    boxes: dict[str, list[dict[str, Any]]] = {Path(row["path"]).stem: [] for row in images.values()}
    for row in work.read("ingest", "annotations").to_pylist():
        boxes[Path(images[row["image_id"]]["path"]).stem].append(row)
    return {Path(row["path"]).stem: row for row in images.values()}, boxes


def assert_painted(snapshot: Snapshot, row: dict[str, Any], data: bytes) -> None:
    """Check that ignore regions are grey and all other pixels unchanged, except for the second JPEG compression."""
    before, after = (cv2.imdecode(np.frombuffer(b, np.uint8), 1).astype(int) for b in (read_jpeg(snapshot, row), data))
    grey = np.zeros(before.shape[:2], bool)
    for name, value in (("ignore", True), ("boxes", False)):
        for box in row[name]:
            x0, y0, x1, y1 = (box[side] for side in SIDES)
            grey[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = value
    core = cv2.erode(grey.astype(np.uint8), np.ones((33, 33)), borderValue=1) > 0  # JPEG blocks that are entirely grey
    far = cv2.dilate(grey.astype(np.uint8), np.ones((33, 33))) == 0
    if core.any():
        assert abs(after[core] - 114).max() <= 3
    if far.any():
        assert abs(after - before)[far].mean() < 6


@pytest.mark.parametrize("raw", [False, True])
def test_a_yolo_export_is_read_back_with_equal_boxes(snapshot: Snapshot, tmp_path: Path, raw: bool) -> None:
    answer = export(snapshot, "yolo", tmp_path / "out", raw=raw)
    rows = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist()}
    images, boxes = read_back({"format": "yolo", "images": str(tmp_path / "out"), "split": "source"}, tmp_path / "s")
    assert answer["samples"] == len(images) == len(rows)
    painted = 0
    for name, row in rows.items():
        assert labels(boxes[name]) == labels(row["boxes"])
        data = (tmp_path / "out" / images[name]["path"]).read_bytes()
        assert f"images/{row['split']}/" in images[name]["path"]
        if row["ignore"] and not raw:
            painted += 1
            assert_painted(snapshot, row, data)
        else:
            assert data == read_jpeg(snapshot, row)
    assert answer["painted"] == painted
    assert (painted > 0) is not raw


@pytest.mark.parametrize("raw", [False, True])
def test_a_coco_export_holds_the_boxes_and_pixels_of_the_yolo_export(
    snapshot: Snapshot, tmp_path: Path, raw: bool
) -> None:
    answers = {name: export(snapshot, name, tmp_path / name, raw=raw) for name in ("yolo", "coco")}
    assert answers["coco"]["painted"] == answers["yolo"]["painted"]
    assert (answers["coco"]["painted"] > 0) is not raw
    yolo, coco = (
        read_back({"format": name, "images": str(tmp_path / name), "split": "source"}, tmp_path / f"{name} again")
        for name in ("yolo", "coco")
    )
    rows = snapshot.table("samples").to_pylist()
    assert set(coco[0]) == set(yolo[0]) == {row["sample_id"] for row in rows}
    for row in rows:
        name = row["sample_id"]
        files = [tmp_path / form / images[name]["path"] for form, (images, _) in (("yolo", yolo), ("coco", coco))]
        assert files[1].parent == tmp_path / "coco" / "images" / row["split"]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert labels(coco[1][name]) == labels(yolo[1][name]) == labels(row["boxes"])


def test_a_crowd_of_the_source_is_painted_grey_and_has_no_annotation(tiny: Any, tmp_path: Path) -> None:
    tiny.write(tmp_path / "data")
    file = tmp_path / "data" / "labels.json"
    document = json.loads(file.read_text())
    for annotation in document["annotations"][::3]:  # one of the three squares of each image
        annotation["iscrowd"] = 1
    file.write_text(json.dumps(document))
    (tmp_path / "tiny.yaml").write_text(tiny.config(tmp_path / "store", tmp_path / "data", "0 3 * * *"))
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(load(tmp_path / "tiny.yaml"), here).snapshot)
    rows = snapshot.table("samples").to_pylist()
    assert export(snapshot, "coco", tmp_path / "out")["painted"] == sum(bool(row["ignore"]) for row in rows) >= 10
    images, boxes = read_back({"format": "coco", "images": str(tmp_path / "out"), "split": "source"}, tmp_path / "s")
    for row in rows:
        name = row["sample_id"]
        assert labels(boxes[name]) == labels(row["boxes"])
        assert not any(box["crowd"] for box in boxes[name])
        if row["ignore"]:
            assert_painted(snapshot, row, (tmp_path / "out" / images[name]["path"]).read_bytes())


@pytest.mark.parametrize("raw", [False, True])
def test_a_webdataset_export_holds_every_sample_with_its_record(snapshot: Snapshot, tmp_path: Path, raw: bool) -> None:
    export(snapshot, "webdataset", tmp_path / "out", raw=raw)
    members: dict[str, bytes] = {}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        members |= shard.read_members(path.read_bytes())
    rows = snapshot.table("samples").to_pylist()
    assert len(members) == 2 * len(rows)
    for row in rows:
        record = json.loads(members[f"{row['sample_id']}.json"])
        assert labels(record["boxes"]) == labels(row["boxes"])
        data = members[f"{row['sample_id']}.jpg"]
        if row["ignore"] and not raw:
            assert_painted(snapshot, row, data)
        else:
            assert data == read_jpeg(snapshot, row)


def test_the_command_rejects_an_existing_folder_and_an_unknown_format(snapshot: Snapshot, tmp_path: Path) -> None:
    command = ["export", snapshot.uri, str(tmp_path / "out"), "--format"]
    result = CliRunner().invoke(app, [*command, "yolo", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["samples"] == snapshot.table("samples").num_rows
    assert CliRunner().invoke(app, [*command, "yolo"]).exit_code == 2  # nothing is overwritten
    with pytest.raises(ConfigError, match="yolo, coco, webdataset"):
        export(snapshot, "voc", tmp_path / "other")


@pytest.mark.parametrize("format", ["yolo", "webdataset"])
@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_shard_is_not_exported(snapshot: Snapshot, tmp_path: Path, format: str, damage: str) -> None:
    path = Path(snapshot.shard_uri(snapshot.manifest["shards"][0]["sha256"]))
    content = path.read_bytes()
    path.unlink()
    if damage == "flipped":
        path.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    with pytest.raises(StoreError, match=rf"^{path}: .*; `speck repair {snapshot.uri}` makes it again$"):
        export(snapshot, format, tmp_path / "out")
