"""The twelve metrics of pycocotools, on the boxes as the label files have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from etl import boxes
from etl.config import Config
from etl.evaluation import COMPARABLE_METRICS, ComparableMetrics
from etl.snapshots.ground_truth import load_source_boxes
from etl.snapshots.snapshot import Snapshot
from etl.sources.source_ids import Id, join_images, read_source_ids
from train.detections import GroundTruth
from train.evaluation.detectors import DetectedImages
from train.metrics.summary import average_precision


def measure_comparable(
    config: Config, detected: DetectedImages, images: pa.Table, snapshot: Snapshot
) -> ComparableMetrics:
    """Return the metrics of the combined detections as pycocotools measures them on the label files of the images.

    Crowds are excuses for detections of their category, every other box is an object; sizes go by the area in the file;
    1, 10 or 100 detections count per image and category. Equal scores are ranked in the order of the image ids in the
    label files, of other formats by path.
    """
    truth = _source_truth(detected, load_source_boxes(snapshot, images))
    categories = detected.detector.categories
    order = _image_order(config, images["path"].to_pylist())
    detections = detected.detections["combined"]
    measured = average_precision(
        [truth[number] for number in order], [detections[number] for number in order], categories, coco_rules=True
    )
    crowds = sum(int(image.ignore.sum()) for image in truth)
    values = {name: measured[name] for name in COMPARABLE_METRICS}
    return ComparableMetrics(**values, objects=sum(map(len, truth)) - crowds, crowds=crowds)


def _image_order(config: Config, paths: Sequence[str]) -> list[int]:
    """Return the images by their ids in the label files, then those that have none."""
    files = read_source_ids(config, paths)
    joined = join_images(files)
    tables = [file.images for file in files] if joined is None else [joined]
    keys: dict[str | None, tuple[int, bool, Id]] = {}
    for number, table in enumerate(tables):
        for key, path in table.items():
            keys.setdefault(path, (number, isinstance(key, str), key))
    last = len(tables), False, 0
    return sorted(range(len(paths)), key=lambda number: keys.get(paths[number], last))


def _source_truth(detected: DetectedImages, table: pa.Table) -> list[GroundTruth]:
    place = {image.image_id: number for number, image in enumerate(detected.images)}
    number_of = {name: number for number, name in enumerate(detected.detector.categories)}
    image = np.array([place[image_id] for image_id in table["image_id"].to_pylist()], dtype=np.int64)
    category = np.array([number_of[name] for name in table["category"].to_pylist()], dtype=np.int64)
    area, crowd = table["area"].to_numpy(), np.array(table["crowd"].to_pylist(), dtype=np.bool_)
    xyxy, order = boxes.from_table(table), np.argsort(image, kind="stable")
    parts = np.split(order, np.searchsorted(image[order], np.arange(1, len(place))))
    return [
        GroundTruth(xyxy[rows], category[rows], area[rows], crowd[rows], np.zeros(len(rows), dtype=np.bool_))
        for rows in parts
    ]
