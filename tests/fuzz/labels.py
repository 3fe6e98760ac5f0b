"""Label files of every format, read and turned into rows as in a build."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from etl import formats, schema
from etl.formats.labels import ImageLabels
from etl.stages import ingest
from tests.etl.formats import test_nothing_lost as valid
from tests.fuzz.case import REJECT, RIGHT, Case, Target, Targets, as_text, require
from tests.fuzz.mutations import Mutation, mutate_bytes, mutate_json, mutate_text, mutate_xml, one_of

COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(3)],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus", "supercategory": "vehicle"}],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30.5, 40], "area": 99, "iscrowd": 0,
         "segmentation": [[1, 2, 30, 2, 30, 40]], "keypoints": [3, 4, 2]},
        {"id": 2, "image_id": 0, "category_id": 2, "bbox": [5, 5, 9, 9], "iscrowd": 1,
         "segmentation": {"counts": [5, 20, 307175], "size": [480, 640]}},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [500, 400, 200, 100], "attributes": {"occluded": True}},
    ],
}  # fmt: skip
POSE = "0 0.5 0.5 0.1 0.2 0.5 0.5 2\n1 0.3 0.3 0.1 0.1 0.3 0.3 1\n"
_IMAGES = ["0.jpg", "1.jpg", "2.jpg"]


def _row(path: str) -> Any:
    return {
        "image_id": path, "path": path, "sha256": "0" * 64, "width": 640, "height": 480, "format": "JPEG",
        "exif_orientation": 1, "exif_applied": False, "phash": 0, "brightness": 1.0, "contrast": 1.0, "sharpness": 1.0,
    }  # fmt: skip


def check_rows(labels: Iterable[ImageLabels]) -> str:
    """Every entry of the labels is an annotation or a reject with a ledger row; each fits its table."""
    rows = ingest.IngestRows()
    entries = 0
    for number, label in enumerate(labels):
        if ingest.add_image(rows, _row(f"{number}.jpg"), [label]):
            entries += len(label.boxes) + len(label.bad)
    tables = {
        "annotations": schema.table(schema.ANNOTATIONS, rows.annotations),
        "ledger": schema.table(schema.LEDGER, rows.ledger),
        "rejects": schema.table(schema.REJECTS, rows.rejects),
    }
    noted = {row["annotation_id"] for row in rows.ledger}
    read = {row["annotation_id"] for row in rows.annotations} | noted
    require(len(read) == entries, f"{entries} entries of label files, {len(read)} boxes in the tables")
    for row in rows.annotations:
        inside = -0.01 <= row["x0"] < row["x1"] <= 640.01 and -0.01 <= row["y0"] < row["y1"] <= 480.01
        require(inside or row["annotation_id"] in noted, f"a box outside its image without a ledger row: {row}")
    return REJECT if tables["rejects"].num_rows else RIGHT


def _read_image_file(name: str, pose: bool, data: bytes) -> str:
    labels = valid.read(name, data, (1, 3) if pose else None)
    whole = [bad.reason for bad in labels.bad] == ["unreadable_label"]
    if name in ("yolo", "visdrone") and not whole:
        written, entries = len(valid.written_lines(data)), len(labels.boxes) + len(labels.bad)
        require(entries == written, f"{written} lines are not blank, {entries} are boxes or rejects")
    return check_rows([labels])


def per_image(name: str, content: str, *mutations: Mutation, pose: bool = False) -> Callable[[Path], Target]:
    """Return what prepares the target of a format with one file per image."""
    mutate = one_of(*mutations)

    def case(rng: random.Random) -> Case:
        data = mutate(rng, content.encode())
        return Case(f"label.{name}", data, partial(_read_image_file, name, pose, data))

    return lambda _: case


def coco(_: Path) -> Target:
    """Return the target of COCO files: one file, or one of two."""
    mutate = one_of(mutate_json, mutate_json, mutate_json, mutate_bytes)
    reader: Any = formats.get_reader("coco")

    def case(rng: random.Random) -> Case:
        data = mutate(rng, as_text(COCO))
        files = {"a.json": data} | ({"b.json": as_text(COCO)} if rng.random() < 0.2 else {})

        def read() -> str:
            for each in files.values():
                reader.is_label(each) if hasattr(reader, "is_label") else None
            return check_rows([labels for _, _, labels in reader.read_dataset(files, _IMAGES)])

        return Case("labels.json", data, read)

    return case


TARGETS: Targets = {
    "yolo": (14, per_image("yolo", valid.YOLO, mutate_text, mutate_text, mutate_bytes)),
    "yolo_pose": (4, per_image("yolo", POSE, mutate_text, mutate_text, mutate_bytes, pose=True)),
    "dota": (10, per_image("dota", valid.DOTA, mutate_text, mutate_text, mutate_bytes)),
    "visdrone": (10, per_image("visdrone", valid.VISDRONE, mutate_text, mutate_text, mutate_bytes)),
    "voc": (14, per_image("voc", valid.VOC, mutate_xml, mutate_xml, mutate_text, mutate_bytes)),
    "coco": (14, coco),
}
