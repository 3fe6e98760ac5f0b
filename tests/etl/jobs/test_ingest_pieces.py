"""The tables and findings of an ingest are the same in however many parts and pieces its images are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import image_rows, ingest
from etl.jobs.ingest_worker import IngestPart, ingest_part
from etl.lifecycle import review
from etl.review import suspect_id
from etl.storage import store
from etl.storage.paths import DatasetPaths
from etl.storage.work import WorkDir
from tests.etl.imaging.wide_files import tiff

W, H = 80, 60
BOX, POLYGON = "0 0.5 0.5 0.2 0.3", "0 0.8 0.5 0.85 0.5 0.86 0.53 0.84 0.55 0.8 0.54"
POSE = "0 0.8 0.5 0.05 0.08 0.79 0.52 0.81 0.48 0.8 0.5"  # three keypoints
LONG_POSE = "0 0.2 0.5 0.05 0.08 0.19 0.52 0.21 0.48 0.2 0.5 0.2 0.51 0.19 0.5"  # five
OUTSIDE, CLIPPED, UNKNOWN = "0 1.8 1.5 0.1 0.1", "0 0.98 0.5 0.2 0.2", "7 0.5 0.5 0.1 0.1"
OUTSIDE_POSE = "0 1.8 1.5 1.05 1.08 1.79 1.52 1.81 1.48 1.8 1.5"


def png(path: Path, seed: int) -> None:
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (H, W, 3), dtype=np.uint8))


def yolo(folder: Path) -> dict[str, Any]:
    """Pose rows of two lengths, the longer ones first; good, clipped, bad and no boxes; one image is broken."""
    lines = [
        [LONG_POSE, BOX, POSE], [POSE, OUTSIDE_POSE, CLIPPED], [BOX, OUTSIDE, "0 0.1 x 0.1 0.1"], [],
        [LONG_POSE, UNKNOWN, BOX], [POSE, POSE, LONG_POSE], [BOX, BOX], [CLIPPED, POSE],
    ]  # fmt: skip
    for number, rows in enumerate(lines):
        png(folder / f"i{number}.png", number)
        (folder / f"i{number}.txt").write_text("\n".join(rows))
    (folder / "i3.txt").unlink()
    (folder / "i6.png").write_bytes(b"broken")
    (folder / "other.txt").write_text(BOX)
    return {"format": "yolo", "categories": ["car"]}


def polygons(folder: Path) -> dict[str, Any]:
    """Polygons that a few rows of pose do not make pose rows."""
    for number in range(6):
        png(folder / f"i{number}.png", number)
        (folder / f"i{number}.txt").write_text("\n".join([POLYGON] * 4 + [POSE] * (number == 2)))
    return {"format": "yolo", "categories": ["car"]}


def corners(folder: Path) -> dict[str, Any]:
    """A COCO file with two corners in place of position and size, a box of an unknown image and a good polygon."""
    boxes: list[dict[str, Any]] = []
    for number in range(6):
        png(folder / f"i{number}.png", number)
        for place in range(4):
            box = [20 + 3 * place, 15 + number, 45 + 5 * place, 40 + number]
            boxes.append({"image_id": number if len(boxes) != 9 else 99, "category_id": 1, "bbox": box})
    rows = [{"id": n, "area": 9, "iscrowd": 0, **box} for n, box in enumerate(boxes)]
    rows[5] |= {"bbox": [9, 9, 10, 10], "segmentation": [[9, 9, 19, 9, 19, 19]]}
    images = [{"id": n, "file_name": f"i{n}.png", "width": W, "height": H} for n in range(6)]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "van"}]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return {"format": "coco"}


def voc(folder: Path) -> dict[str, Any]:
    """Names that are not in the class list, and boxes whose corners the reader puts in order."""
    for number in range(6):
        png(folder / f"i{number}.png", number)
        objects = ""
        for place, name in enumerate(("car", "van", "lorry", "bus")[: 1 + number % 4]):
            x, y = 5 + 12 * place, 4 + number
            box = {"xmin": x, "ymin": y, "xmax": x + 9, "ymax": y + 8 + place}
            if place == 1:
                box |= {"xmin": box["xmax"], "xmax": box["xmin"]}
            sides = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
            objects += f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>"
        (folder / f"i{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    return {"format": "voc", "categories": ["car", "van"]}


def deep(folder: Path) -> dict[str, Any]:
    """Images of 16 bits, whose range is known only when all are read, and one of 8."""
    for number in range(5):
        values = np.random.default_rng(number).integers(0, 4096, (H, W, 3)).astype(np.uint16)
        (folder / f"i{number}.tif").write_bytes(tiff(values, photometric=2))
        (folder / f"i{number}.txt").write_text("\n".join([BOX] * number))
    png(folder / "i5.png", 5)
    return {"format": "yolo", "categories": ["car"]}


def config_of(source: dict[str, Any], images: Path, home: Path) -> Config:
    settings = {"images": str(images), "max_rejects": 1.0, **source}
    return Config.model_validate({"name": "some", "store": str(home), "source": settings})


def ingested(config: Config) -> dict[str, Any]:
    """All that the ingest has written, and its answer without times."""
    with cluster.serial() as here:
        answer = ingest.run(config, here)
    work = WorkDir(answer["work"])
    tables = {name: work.read("ingest", name).to_pylist() for name in ("images", "annotations", "ledger", "rejects")}
    build = {key: value for key, value in work.build.items() if key != "config"}
    work.delete()
    return {**tables, **build, "unchanged": answer["images_unchanged"], "reasons": answer["rejects"]}


def in_pieces(patched: pytest.MonkeyPatch, boxes: int) -> None:
    patched.setattr(ingest, "_PART_BYTES", 1)
    patched.setattr(image_rows, "_PIECE", boxes)


@pytest.mark.parametrize("boxes", [1, 7])
@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (yolo, {"pose_row": 8, "outside_image": 2, "broken_image": 3, "unknown_category_id": 1, "malformed_line": 1}),
        (polygons, {}),
        (corners, {"corners_for_size": 22, "unknown_image_id": 1}),
        (voc, {"unknown_category": 3}),
        (deep, {}),
    ],
)
def test_tables_and_findings_do_not_depend_on_parts_and_pieces(
    make: Callable[[Path], dict[str, Any]],
    reasons: dict[str, int],
    boxes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder := tmp_path / "data").mkdir()
    source = make(folder)
    whole = ingested(config_of(source, folder, tmp_path / "whole"))
    assert {reason: whole["reasons"].get(reason, 0) for reason in reasons} == reasons
    in_pieces(monkeypatch, boxes)
    config = config_of(source, folder, tmp_path / "pieces")
    assert ingested(config) == whole
    count = len(list(folder.glob("i*.png")) + list(folder.glob("i*.tif")))
    assert ingested(config) == {**whole, "unchanged": count}
    changed = sorted(folder.glob("i2.*"))[-1]  # the labels where a file has those of one image
    changed.write_bytes(changed.read_bytes() + b"\n")
    partly_read = ingested(config)
    monkeypatch.undo()
    fresh = ingested(config_of(source, folder, tmp_path / "fresh"))
    assert partly_read == {**fresh, "unchanged": count - 1}


@pytest.mark.parametrize(("lines", "expected"), [(1, [3, 1]), (200, [1, 1, 1, 1])])
def test_many_labels_make_a_part_smaller(
    lines: int, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "data").mkdir()
    for number in range(4):
        png(folder / f"i{number}.png", number)
        (folder / f"i{number}.txt").write_text("\n".join([BOX] * lines))
    parts: list[int] = []

    def recorded(part: IngestPart) -> pa.Table:
        parts.append(len(part.images))
        return ingest_part(part)

    size = (folder / "i0.png").stat().st_size
    monkeypatch.setattr(ingest, "_PART_BYTES", 3 * size + 4 * 8 * len(BOX))
    monkeypatch.setattr(ingest, "ingest_part", recorded)
    found = ingested(config_of({"format": "yolo", "categories": ["car"]}, folder, tmp_path / "store"))
    assert (parts, len(found["annotations"])) == (expected, 4 * lines)


def test_checks_add_their_rows_after_those_of_the_source_one_check_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "data").mkdir()
    in_pieces(monkeypatch, 1)
    found = ingested(config_of(yolo(folder), folder, tmp_path / "store"))
    by_check = [row["where"] for row in found["rejects"] if row["reason"] == "pose_row"]
    short = ["i0.txt:3", "i1.txt:1", "i5.txt:1", "i5.txt:2", "i7.txt:2"]
    assert by_check == [*short, "i0.txt:1", "i4.txt:1", "i5.txt:3"]
    assert found["rejects"][-len(by_check) :] == [row for row in found["rejects"] if row["reason"] == "pose_row"]
    assert [row["rule"] for row in found["ledger"]][-len(by_check) :] == ["pose_row"] * len(by_check)


def answers_about(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer of each kind, about labels of different images, and one about a label that is gone."""

    def answer(kind: str, row: dict[str, Any], **fields: Any) -> dict[str, Any]:
        box = fields.pop("box", [row[side] for side in ("x0", "y0", "x1", "y1")])
        label = None if kind == "missing" else fields.pop("label", row["annotation_id"])
        return {
            "suspect_id": suspect_id(kind, row["image_id"], label, tuple(box)), "kind": kind,
            "image_id": row["image_id"], "path": row["file"].replace("xml", "png"), "annotation_id": label, "box": box,
            "category": row["category"], "answer": "error", **fields,
        }  # fmt: skip

    cars = [row for row in annotations if row["category"] == "car"]
    return [
        answer("spurious", cars[0]),
        answer("swapped", cars[1], new_category="van"),
        answer("misplaced", cars[2], new_box=[1.0, 2.0, 12.0, 13.0]),
        answer("missing", cars[3], box=[50.0, 30.0, 60.0, 40.0], new_category="car"),
        answer("spurious", cars[4], label="f" * 16),
    ]


def test_answers_of_a_review_are_applied_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "data").mkdir()
    source = voc(folder)
    file = folder / "i2.xml"
    file.write_text(file.read_text().replace("<xmin>5<", "<xmin>-3<"))  # clipped, and then moved by the review
    first = ingested(config_of(source, folder, tmp_path / "first"))
    answers = answers_about(first["annotations"])
    found = []
    for name, boxes in (("whole", 0), ("pieces", 1)):
        config = config_of(source, folder, tmp_path / name)
        entry = {"dataset": "some", "snapshot": "0" * 16, "answers": answers, "time": "2026-01-01T00:00:00+00:00"}
        store.write_bytes(DatasetPaths(config.home).review(1), store.to_json(entry))
        assert len(review.load_errors(config.home)) == len(answers)
        with monkeypatch.context() as patched:
            if boxes:
                in_pieces(patched, boxes)
            found.append(ingested(config))
    whole, pieces = found
    assert pieces == whole
    assert whole["review"] == {"missing": 1, "swapped": 1, "misplaced": 1, "spurious": 1, "stale": 1, "repeated": 0}
    before, after = ({row["annotation_id"]: row for row in one["annotations"]} for one in (first, whole))
    assert [*after][: len(before)] == [*before] and len(after) == len(before) + 1
    assert sum(after[name] != row for name, row in before.items()) == 2
    rules = [(row["outcome"], row["rule"]) for row in whole["ledger"]]
    assert ("clipped", "image_border") not in rules
    assert rules[-4:] == [
        ("kept", "review:missing"), ("dropped", "review:spurious"), ("kept", "review:swapped"),
        ("kept", "review:misplaced"),
    ]  # fmt: skip
