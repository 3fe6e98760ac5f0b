"""A small store with everything in it: two snapshots, a promoted model, an ONNX file, answers and detections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.config import Config
from etl.ids import digest
from etl.lifecycle import champion
from etl.review import suspect_id
from etl.snapshots.snapshot import Snapshot
from tests.etl.conftest import Dataset
from tests.fuzz.case import as_text
from tests.train.evaluation.random_model import save_random_model


@dataclass(frozen=True)
class ValidStore:
    """A dataset with its store."""

    dataset: Dataset
    config: Config
    snapshot: Snapshot
    model: str

    @property
    def home(self) -> Path:
        """The folder of the dataset in the store."""
        return Path(self.config.home)

    def answers(self) -> bytes:
        """Return a file of answers about two labels."""
        images = {row["image_id"]: row["path"] for row in self.snapshot.table("images").to_pylist()}
        boxes = self.snapshot.table("annotations").to_pylist()[:2]
        given: list[dict[str, Any]] = []
        for box, answer in zip(boxes, ("error", "correct"), strict=True):
            image, annotation = box["image_id"], box["annotation_id"]
            xyxy = (box["x0"], box["y0"], box["x1"], box["y1"])
            given.append({
                "suspect_id": suspect_id("spurious", image, annotation, xyxy), "kind": "spurious", "image_id": image,
                "path": images[image], "annotation_id": annotation, "box": xyxy, "category": box["category"],
                "answer": answer,
            })  # fmt: skip
        return as_text({"dataset": self.config.name, "snapshot": self.snapshot.id, "answers": given})

    def detections(self) -> bytes:
        """Return COCO results: a detection on each label."""
        images = {row["image_id"]: row["path"] for row in self.snapshot.table("images").to_pylist()}
        rows = [
            {"image_id": images[box["image_id"]], "category_id": box["category"], "score": 0.5,
             "bbox": [box["x0"], box["y0"], box["x1"] - box["x0"], box["y1"] - box["y0"]]}
            for box in self.snapshot.table("annotations").to_pylist()
        ]  # fmt: skip
        return as_text(rows)


def make(folder: Path) -> ValidStore:
    """Build a dataset twice, the second time with one more image, and promote a model of random weights."""
    dataset = Dataset(folder / "data")
    for number in range(8):
        dataset.put(f"{chr(97 + number)}_5", [*dataset.boxes(number), (0, 5, 5, 20, 20)], number)
    config = dataset.config(folder / "store")
    dataset.build(config)
    dataset.put("z_1", [(1, 10, 10, 20, 20)], 50)
    snapshot = Snapshot.open(dataset.build(config)["snapshot"])
    model = save_random_model(config, snapshot, run=digest("run")[:16])
    champion.promote(config.home, model.rpartition("/")[2], "first", over=None)
    return ValidStore(dataset, config, snapshot, model)
