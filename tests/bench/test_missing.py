"""Find removed labels of small objects in the demo data: precision and recall, compared with a fixed rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from etl import boxes
from etl.config import load
from etl.demo import dataset
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from train.engine import run as engine
from train.evaluation.detectors import detect_all, load_detector
from train.evaluation.images import build_eval_images
from train.label_errors import run as find_missing

REMOVED = 0.05  # of the small labels
SURE, APART = 0.95, 0.5  # the fixed rule: score above, IoU with every label below
SAME = 0.5  # NWD from which a suspect matches a removed label


@pytest.mark.timeout(3600)
def test_removed_labels_of_small_objects_are_found(tmp_path: Path, monkeypatch: Any, bench: Any) -> None:
    dataset.write_dataset(tmp_path / "demo", 7)
    removed: dict[str, list[list[float]]] = {}
    rng = np.random.default_rng(0)
    for file in sorted((tmp_path / "demo" / "dataset").rglob("*.json")):
        document = json.loads(file.read_text())
        if not isinstance(document, dict) or "annotations" not in document:
            continue
        names = {row["id"]: row["file_name"] for row in document["images"]}
        kept = []
        for row in document["annotations"]:
            x, y, w, h = row["bbox"]
            if 0 < w * h < 32**2 and not row.get("iscrowd") and rng.random() < REMOVED and row["image_id"] in names:
                removed.setdefault(names[row["image_id"]], []).append([x, y, x + w, y + h])
            else:
                kept.append(row)
        file.write_text(json.dumps({**document, "annotations": kept}))
    monkeypatch.setenv("SPECK_DEMO", str(tmp_path / "demo"))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(bench.datasets / "demo.yaml")
    with cluster.connect(workers=2) as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    model = engine.train(config, snapshot)["model"]
    queue = pq.read_table(find_missing.find_missing(config, snapshot, model).queue).to_pylist()

    def hit(path: str, box: list[float]) -> tuple[str, int] | None:
        """Return which removed label of this image a box matches, None for none."""
        name = next((name for name in removed if path.endswith(name)), None)
        if name is None:
            return None
        near = boxes.nwd(boxes.as_boxes([box]), boxes.as_boxes(removed[name]))
        return (name, int(near.argmax())) if near.max() >= SAME else None

    ours = [hit(row["path"], [row[side] for side in ("x0", "y0", "x1", "y1")]) for row in queue]
    detector = load_detector(config, snapshot, model)
    theirs = []
    for split in ("train", "val"):
        images = build_eval_images(*load_ground_truth(snapshot, split), detector.categories)
        combined = detect_all(images, detector).detections["combined"]
        for image, detections in zip(images, combined, strict=True):
            sure = detections.take(detections.score > SURE)
            alone = boxes.iou(sure.xyxy, image.truth.xyxy).max(axis=1, initial=0) < APART
            theirs += [hit(image.path, box) for box in sure.xyxy[alone].tolist()]
    total = sum(map(len, removed.values()))
    lines = []
    for name, found_by in (("ours", ours), ("fixed rule", theirs)):
        right = {place for place in found_by if place is not None}
        shown = [
            f"@{k} {sum(p is not None for p in found_by[:k]) / k:.2f}" for k in (10, 25, 50, 100) if k <= len(found_by)
        ]
        lines.append(
            f"  {name}: {len(found_by)} suspects, {len(right)} of {total} removed labels found "
            f"({len(right) / total:.2f}), precision {', '.join(shown) or 'of none'}"
        )
        for bucket in boxes.BUCKETS[:3]:
            labels = [(n, i) for n, rows in removed.items() for i, box in enumerate(rows) if _bucket(box) == bucket]
            if labels:
                lines.append(f"    {bucket}: {len(right & set(labels))} of {len(labels)}")
    bench.report("demo, seed 7, 5 % of the labels under 32 px removed:", *lines)
    assert len({place for place in ours if place}) > len({place for place in theirs if place})


def _bucket(box: list[float]) -> str:
    return boxes.BUCKETS[int(boxes.bucket(boxes.side_length(boxes.as_boxes([box])))[0])]
