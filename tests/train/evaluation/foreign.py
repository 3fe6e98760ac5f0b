"""A COCO dataset, detections of another detector on it, and their metrics by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from etl.config import Config, load
from etl.evaluation import COMPARABLE_METRICS, FileReading
from etl.execution import cluster
from etl.imaging import codec
from etl.jobs import build
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from train.evaluation.comparable import measure_comparable
from train.evaluation.detectors import detect_all, from_file_or_truth
from train.evaluation.images import build_eval_images

NAMES = {3: "car", 17: "hot-air balloon", 90: "bus"}  # sparse ids
GROUPS = 20
Row = dict[str, Any]
Document = dict[str, list[Row]]


@dataclass(frozen=True)
class Made:
    """A dataset, its label document, and detections with the ids of that document."""

    config: Config
    snapshot: Snapshot
    document: Document
    results: list[Row]

    @property
    def files(self) -> dict[int, str]:
        return {image["id"]: image["file_name"] for image in self.document["images"]}

    def val(self) -> set[int]:
        """The image ids of val."""
        images = self.snapshot.table("images")
        paths = dict(zip(images["path"].to_pylist(), images["split"].to_pylist(), strict=True))
        return {number for number, name in self.files.items() if paths[name] == "val"}


def make_document(seed: int = 0) -> Document:
    """Images of several sizes, named by numbers that are not their ids, with crowds, ignored boxes and empty images."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    ids = rng.permutation(GROUPS) + 1
    for number in range(GROUPS):
        width, height = (int(side) for side in rng.integers(120, 260, 2))
        name = f"site{number % 3}/{100 + number:06d}.png"
        images.append({"id": int(ids[number]), "file_name": name, "width": width, "height": height})
        for place in range(0 if number % 5 == 4 else 9):
            w, h = (int(side) for side in rng.choice([6, 14, 30, 50, 99], 2))
            x, y = int(rng.integers(-4, width - 8)), int(rng.integers(-4, height - 8))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": int(ids[number]),
                    "category_id": int(rng.choice([3, 17, 90])), "bbox": [x, y, w, h],
                    "area": float(w * h) * float(rng.uniform(0.3, 1)), "iscrowd": int(place == 8),
                    "ignore": int(place == 7),
                }
            )  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def detect(document: Document, seed: int = 1) -> list[Row]:
    """Shifted copies of two thirds of the boxes, some of another class, and boxes at random."""
    rng = np.random.default_rng(seed)
    found = []
    for row in document["annotations"]:
        for _ in range(int(rng.choice([0, 1, 2, 3]))):
            shift = rng.integers(-3, 4, 4)
            box = [*(np.array(row["bbox"][:2]) + shift[:2]), *np.maximum(np.array(row["bbox"][2:]) + shift[2:], 2)]
            category = row["category_id"] if rng.random() < 0.9 else int(rng.choice([3, 17, 90]))
            score = float(rng.choice([0.2, 0.4, rng.random()]))
            found.append({"image_id": row["image_id"], "category_id": category, "bbox": box, "score": score})
    for image in document["images"]:
        for _ in range(4):
            box = [*rng.integers(0, 90, 2), *rng.integers(5, 60, 2)]
            category = int(rng.choice([3, 17, 90]))
            found.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": float(rng.random())})
    return [{**row, "bbox": [int(side) for side in row["bbox"]]} for row in found]


def write(folder: Path, document: Document, more: str = "", files: dict[str, Document] | None = None) -> Path:
    """Write images of noise, the label files, and the dataset file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for image in document["images"]:
        pixels = rng.integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
        file = folder / "images" / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(codec.encode(pixels, 90))
    (folder / "labels").mkdir(exist_ok=True)
    for name, content in (files or {"labels.json": document}).items():
        (folder / "labels" / name).write_text(json.dumps(content))
    settings = folder / "made.yaml"
    settings.write_text(
        f"name: made\nstore: {folder}/store\n"
        "source: {format: coco, images: images, annotations: labels, group: '([0-9]{6})', split: {val: 0.4},\n"
        "  allow: [no_objects]}\n"
        "tile: {size: 96, overlap: 0.25, scales: [1]}\naugment: {copies: 0, mosaic: 0, copy_paste: 0}\n"
        "train: {model: speck-micro, weights: scratch}\n" + more
    )
    return settings


def make(folder: Path, document: Document | None = None, more: str = "", **options: Any) -> Made:
    document = document or make_document()
    config = load(write(folder, document, more, **options))
    with cluster.serial() as engine:
        snapshot = Snapshot.open(build.build(config, engine).snapshot)
    return Made(config, snapshot, document, detect(document))


def judge(made: Made, folder: Path, rows: Any) -> tuple[np.ndarray, FileReading]:
    """Return the comparable metrics of a results file on val, and how it was read."""
    file = folder / "results.json"
    file.write_text(json.dumps(rows))
    images, truth = load_ground_truth(made.snapshot, "val")
    detector = from_file_or_truth(made.config, made.snapshot, str(file), images)
    detected = detect_all(build_eval_images(images, truth, detector.categories), detector)
    metrics = measure_comparable(made.config, detected, images, made.snapshot)
    values = [getattr(metrics, name) for name in COMPARABLE_METRICS]
    assert detector.reading is not None
    return np.array([-1.0 if value is None else value for value in values]), detector.reading


def pycocotools(made: Made, rows: list[Row]) -> np.ndarray:
    """Return the twelve metrics of the detections with the document's own ids, on val."""
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = json.loads(json.dumps({**made.document, "info": {}}))
        gold.createIndex()
        evaluation = COCOeval(gold, gold.loadRes(json.loads(json.dumps(rows))), "bbox")
        evaluation.params.imgIds = sorted(made.val())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


def on_val(made: Made) -> list[Row]:
    val = made.val()
    return [row for row in made.results if row["image_id"] in val]


def as_dataset(made: Made, name: Callable[[str], str]) -> Document:
    """The detections as a dataset file with its own ids and tables."""
    numbers = {number: place for place, number in enumerate(sorted(made.files), start=500)}
    kinds = {3: 1, 17: 2, 90: 3}
    return {
        "images": [{"id": numbers[number], "file_name": name(path)} for number, path in made.files.items()],
        "categories": [{"id": kinds[number], "name": name} for number, name in NAMES.items()],
        "annotations": [
            {**row, "image_id": numbers[row["image_id"]], "category_id": kinds[row["category_id"]]}
            for row in made.results
        ],
    }


def renamed(rows: list[Row], image: Callable[[int], Any], category: Callable[[int], Any]) -> list[Row]:
    return [{**row, "image_id": image(row["image_id"]), "category_id": category(row["category_id"])} for row in rows]


def same(value: Any) -> Any:
    return value


PLACES = {3: 0, 17: 1, 90: 2}
