"""COCO sources ingested end to end: what is refused, what is found, and where each box says it stands."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.config import Config
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import ingest
from etl.jobs.build import audit_source, build
from etl.snapshots.snapshot import Snapshot
from etl.storage.work import WorkDir


def images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 255, (60, 90, 3), dtype=np.uint8))


def labels(path: Path, *names: str, first: int = 1, **changes: Any) -> None:
    """One box of 2 x 2 px and one of 20 x 20 px for each image."""
    rows = [{"id": n, "file_name": name, "width": 90, "height": 60} for n, name in enumerate(names)]
    boxes = [
        {"id": first + 2 * n + k, "image_id": n, "category_id": 1, "bbox": [5 + 3 * n, 5, side, side]}
        for n in range(len(names))
        for k, side in enumerate((2, 20))
    ]
    document = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "red"}], **changes}
    path.write_text(json.dumps(document))


def config(folder: Path, **source: Any) -> Config:
    values = {"format": "coco", "images": str(folder), **source}
    return Config.model_validate({"name": "some", "store": str(folder.parent / "store"), "source": values})


def ingested(dataset: Config) -> dict[str, list[dict[str, Any]]]:
    with cluster.serial() as here:
        work = WorkDir(ingest.run(dataset, here)["work"])
    return {name: work.read("ingest", name).to_pylist() for name in ("images", "annotations", "rejects")}


def test_findings_name_the_image_and_the_id_of_each_box(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, "x/a.png", "x/b.png")
    labels(folder / "ann.json", "images/a.png", "images/b.png")
    with cluster.serial() as here:
        audit = audit_source(config(folder), here)
    found = {row.code: row for row in audit.findings}
    assert found["under_3px"].files == ("ann.json: x/a.png #1", "ann.json: x/b.png #3")
    assert found["image_names"].count == 2
    assert "2 by path end" in found["image_names"].advice


def test_a_snapshot_knows_the_file_and_the_id_of_each_box(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, *(f"{n}.png" for n in range(6)))
    labels(folder / "one.json", *(f"{n}.png" for n in range(3)))
    labels(folder / "two.json", *(f"{n}.png" for n in range(2, 6)), first=100)
    snapshot = Snapshot.open(build(config(folder, split={"val": 0.4})).snapshot)
    rows = snapshot.table("annotations").select(["file", "source_id"]).to_pylist()
    assert sorted((row["file"], int(row["source_id"])) for row in rows) == [
        *(("one.json", n) for n in range(1, 7)),
        *(("two.json", n) for n in range(100, 108)),
    ]
    assert snapshot.plan.guesses == ()


def test_names_that_meet_no_image_refuse_the_build_and_say_what_would_join_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, *(f"{n:06d}.png" for n in range(4)))
    labels(folder / "ann.json", *(f"frame_{n:06d}.jpg" for n in range(4)))
    with pytest.raises(SourceError) as caught:
        ingested(config(folder))
    message = str(caught.value)
    assert "4 of 4 images cannot be used" in message
    assert "8 of 8 boxes cannot be used" in message
    hint = re.search(r"source\.match: '(.+)' joins 4 of 4", message)
    assert hint is not None
    assert len(message.splitlines()) < 25
    assert len(ingested(config(folder, match=hint[1]))["annotations"]) == 8


def test_a_json_with_boxes_in_another_form_is_a_reject(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, "a.png", "b.png")
    labels(folder / "ann.json", "a.png", "b.png")
    nested = [{"id": 1, "file_name": "a.png", "annotations": [{"bbox": [1, 2, 9, 9]}]}]
    (folder / "nested.json").write_text(json.dumps({"images": nested}))
    (folder / "results.json").write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 9, 9], "score": 0.5}]))
    with cluster.serial() as here:
        audit = audit_source(config(folder), here)
    rejects = [(row["where"], row["reason"], row["found"]) for row in ingested(config(folder))["rejects"]]
    assert rejects == [("nested.json", "unread_label", "has no list 'annotations'")]
    skipped = next(row for row in audit.findings if row.code == "files_without_boxes")
    assert (skipped.files, "results.json holds detections of a model" in skipped.advice) == (("results.json",), True)


def test_every_box_of_an_image_that_cannot_be_used_is_a_reject(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, "a.png", "b.png", "c.png")
    (folder / "b.png").write_bytes(b"broken")
    labels(folder / "ann.json", "a.png", "b.png", "gone.png", first=11)
    found = ingested(config(folder, max_rejects=1.0))
    assert [row["source_id"] for row in found["annotations"]] == ["11", "12"]
    rejects = [(row["kind"], row["where"], row["reason"]) for row in found["rejects"]]
    assert sorted(rejects) == [
        ("annotation", "ann.json: b.png #13", "broken_image"),
        ("annotation", "ann.json: b.png #14", "broken_image"),
        ("annotation", "ann.json: gone.png #15", "missing_image"),
        ("annotation", "ann.json: gone.png #16", "missing_image"),
        ("file", "c.png", "unlisted_image"),
        ("image", "ann.json: gone.png", "missing_image"),
        ("image", "b.png", "broken_image"),
    ]


def test_an_image_whose_id_is_unclear_is_not_used_without_its_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, "a.png", "b.png", "c.png")
    rows = [{"id": n, "file_name": name} for n, name in ((0, "a.png"), (0, "b.png"), (2, "c.png"))]
    labels(folder / "ann.json", "a.png", "b.png", "c.png", images=rows)
    found = ingested(config(folder, max_rejects=1.0))
    assert [row["path"] for row in found["images"]] == ["c.png"]
    reasons = [(row["kind"], row["where"], row["reason"]) for row in found["rejects"]]
    assert ("image", "a.png", "ambiguous_image_id") in reasons
    assert ("annotation", "ann.json: a.png #1", "ambiguous_image_id") in reasons
    assert ("annotation", "ann.json: #3", "unknown_image_id") in reasons
    assert len(found["annotations"]) + sum(kind == "annotation" for kind, *_ in reasons) == 6


def test_a_guess_that_the_plan_does_not_have_is_refused_with_its_cure(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, *(f"{n}.png" for n in range(5)))
    labels(folder / "ann.json", *(f"{n}.png" for n in range(5)))
    build(config(folder, split={"val": 0.4}))
    labels(folder / "ann.json", *(f"in/{n}.png" for n in range(5)))
    with pytest.raises(SourceError, match="5 of 5 names can be guessed: `speck plan --update` allows it"):
        build(config(folder, split={"val": 0.4}))


def test_new_ids_and_another_order_of_the_images_change_no_sample(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, *(f"{n}.png" for n in range(5)))
    labels(folder / "ann.json", *(f"{n}.png" for n in range(5)))
    first = build(config(folder, split={"val": 0.4}))
    document = json.loads((folder / "ann.json").read_text())
    document["images"].reverse()
    document["annotations"].sort(key=lambda row: -row["image_id"])
    for number, row in enumerate(document["annotations"]):
        row["id"] = 500 + number
    (folder / "ann.json").write_text(json.dumps(document))
    second = build(config(folder, split={"val": 0.4}))
    samples = [Snapshot.open(answer.snapshot).table("samples")["sha256"].to_pylist() for answer in (first, second)]
    assert samples[0] == samples[1]
    assert second.reused_samples == len(samples[1])


CSV_READER = """
from etl.formats.labels import ImageLabels, LabelBox

def read(files, images):
    for file, data in files.items():
        if not file.endswith(".csv"):
            continue
        for row in data.decode().split():
            name, side = row.split(",")
            path = name if name in images else None
            yield path, name, ImageLabels(file, (LabelBox("red", (0, 0, int(side), int(side))),))
"""


def test_the_rule_for_names_joins_what_a_reader_of_the_users_own_finds_no_image_for(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    images(folder, *(f"{n}.png" for n in range(4)))
    (tmp_path / "own_reader.py").write_text(CSV_READER)
    (folder / "boxes.csv").write_text("0.png,20 shot_1.tif,2 shot_2.tif,30 shot_9.tif,5")
    own = config(folder, format=f"{tmp_path}/own_reader:read", max_rejects=1.0, match=r"(\d+)\.")
    found = ingested(own)
    assert [row["source_id"] for row in found["annotations"]] == ["[0]"] * 3
    assert sorted(row["path"] for row in found["images"]) == ["0.png", "1.png", "2.png"]
    assert {(row["where"], row["reason"]) for row in found["rejects"]} == {
        ("boxes.csv: shot_9.tif", "missing_image"),
        ("boxes.csv: shot_9.tif #[0]", "missing_image"),
        ("3.png", "unlisted_image"),
    }


def test_dask_warns_of_nothing_when_labels_are_large(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("distributed")
    folder = tmp_path / "data"
    images(folder, *(f"{n}.png" for n in range(3)))
    boxes = [
        {"id": n, "image_id": n % 3, "category_id": 1, "bbox": [n % 80, n % 50, 5, 5], "note": "x" * 1500}
        for n in range(10_000)
    ]
    labels(folder / "ann.json", *(f"{n}.png" for n in range(3)), annotations=boxes)
    with warnings.catch_warnings(), cluster.connect(workers=1) as connected:
        warnings.simplefilter("error")
        work = WorkDir(ingest.run(config(folder), connected)["work"])
    assert work.read("ingest", "annotations").num_rows == 10_000
    assert {record.name for record in caplog.records if record.levelno >= logging.WARNING} <= {"speck"}
