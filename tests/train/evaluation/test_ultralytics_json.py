"""The JSON that Ultralytics writes for a YOLO dataset, against pycocotools."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from etl.config import load
from etl.execution import cluster
from etl.imaging import codec
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from tests.train.evaluation.foreign import GROUPS, Document, Made, Row, judge, on_val, pycocotools, renamed, same


def write_yolo(folder: Path, names: list[str], used: list[int]) -> tuple[Made, dict[int, str]]:
    """A YOLO dataset of classes of which some occur; the ids of the document are class numbers."""
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for number in range(GROUPS):
        name = f"{'val' if number % 2 else 'train'}/images/{number // 2 + 1}.jpg"
        file = folder / name
        label = folder / name.replace("/images/", "/labels/").replace(".jpg", ".txt")
        for path in (file, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(codec.encode(rng.integers(0, 255, (160, 200, 3), dtype=np.uint8), 90))
        lines = []
        images.append({"id": number, "file_name": name, "width": 200, "height": 160})
        for _ in range(6):
            x, y, w, h = (int(rng.integers(0, 150)), int(rng.integers(0, 110)), *map(int, rng.integers(8, 50, 2)))
            kind = int(rng.choice(used))
            lines.append(f"{kind} {(x + w / 2) / 200} {(y + h / 2) / 160} {w / 200} {h / 160}\n")
            row = {"image_id": number, "category_id": kind, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            annotations.append({**row, "id": len(annotations) + 1})
        label.write_text("".join(lines))
    (folder / "data.yaml").write_text(f"train: train/images\nval: val/images\nnames: {json.dumps(names)}\n")
    (folder / "made.yaml").write_text(
        f"name: made\nstore: {folder}/store\nsource: {{format: yolo, images: ., split: source, allow: [no_objects]}}\n"
        "tile: {size: 96, overlap: 0.25, scales: [1]}\naugment: {copies: 0, mosaic: 0, copy_paste: 0}\n"
        "train: {model: speck-micro, weights: scratch}\n"
    )
    config = load(folder / "made.yaml")
    with cluster.serial() as engine:
        snapshot = Snapshot.open(build.build(config, engine).snapshot)
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    results = detect_classes(document, used)
    return Made(config, snapshot, document, results), dict(enumerate(names))


def detect_classes(document: Document, used: list[int]) -> list[Row]:
    rng = np.random.default_rng(8)
    rows = []
    for row in document["annotations"]:
        box = [int(side) for side in np.array(row["bbox"]) + rng.integers(-2, 3, 4)]
        kind = row["category_id"] if rng.random() < 0.8 else int(rng.choice(used))
        rows.append({"image_id": row["image_id"], "category_id": kind, "bbox": box, "score": float(rng.random())})
    return rows


@pytest.mark.parametrize(("count", "used"), [(10, [0, 3, 7]), (10, [3, 7]), (80, [0, 11, 40, 79])])
def test_ultralytics_json_of_a_yolo_dataset_with_classes_that_do_not_occur(
    tmp_path: Path, count: int, used: list[int]
) -> None:
    data, names = write_yolo(tmp_path / "data", [f"class {number}" for number in range(count)], used)
    from ultralytics.data.converter import coco80_to_coco91_class

    val = on_val(data)
    expected = pycocotools(data, val)
    stem = {number: int(PurePosixPath(name).stem) for number, name in data.files.items()}
    maps = {"index": same, "index + 1": lambda kind: kind + 1, "name": names.__getitem__}
    if count == 80:
        maps["coco91"] = coco80_to_coco91_class().__getitem__
    for form, kind in maps.items():
        values, reading = judge(data, tmp_path, renamed(val, stem.__getitem__, kind))
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, err_msg=form)
        assert reading.images == "the numbers in file names of the evaluated images"
        assert 0.1 < values[0] < 0.9
