"""Measure how the gains of one model over another vary with the val images: the figures that test_gate.py uses.

    speck demo-data SCENES --seed 7 --images 160
    python -m tests.bench.gate_noise SCENES MODEL MODEL ... > tests/bench/gate_noise.json

The models are trained on the demo with different seeds and have seen none of these scenes. For each pair of models,
gains are measured on the same 1,000 resamples of the images; the figures are of AP_small, of AP by size, and of AP at
the six sites with most objects.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.config import Evaluate
from etl.imaging import codec
from train.detections import Detections, GroundTruth
from train.evaluation.gate.rule import BUCKET_METRICS, SMALL_METRIC
from train.metrics import bootstrap, coco
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.sized_boxes import scaled_images, size_range_of
from train.models.load import load_model
from train.prediction import tiled

SITES = 6
Floats = NDArray[np.float64]


def read_scenes(folder: Path) -> tuple[list[Path], list[str], list[str], list[GroundTruth]]:
    """Return the image files, their sites, the categories and the ground truth of a folder of `speck demo-data`."""
    document = json.loads((folder / "truth.json").read_text())
    names = [row["name"] for row in document["categories"]]
    number = {row["id"]: place for place, row in enumerate(document["categories"])}
    files, sites, truth = [], [], []
    for image in document["images"]:
        found = [base / image["file_name"] for base in (folder / "dataset", folder)]
        file = next((path for path in found if path.exists()), None)
        if file is None:  # one image of the demo is missing on purpose
            continue
        rows = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        xyxy = boxes.as_boxes([(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)])
        no = np.zeros(len(rows), dtype=np.bool_)
        category = np.array([number[row["category_id"]] for row in rows], dtype=np.int64)
        files.append(file)
        sites.append(file.stem.split("_")[0])
        truth.append(GroundTruth(xyxy, category, boxes.area(xyxy), no, no))
    return files, sites, names, truth


def detect(uri: str, files: list[Path], names: list[str]) -> list[Detections]:
    """Return the tiled detections of a model, numbered by these categories."""
    model = load_model(uri, "cpu", "float32")
    index = np.array([names.index(name) for name in model.categories])
    found = []
    for file in files:
        one = tiled.predict_image(model, codec.decode(file.read_bytes()), "tiled", Evaluate())
        found.append(Detections(one.xyxy, one.score, index[one.category], one.window))
    return found


def gains(matched: list[MatchedDetections], sites: list[str], largest: list[str]) -> tuple[Floats, list[int]]:
    """Return the resampled values [model, figure, resample], and the objects that each figure measures."""
    weights = bootstrap.resample(len(sites))
    metrics = [SMALL_METRIC, *(metric for metric in BUCKET_METRICS.values() if metric != "AP_large")]  # no large object
    masks = [np.array([name == site for name in sites]) for site in largest]
    objects = [matched[0].objects(size_range_of(metric.partition("_")[2])) for metric in metrics]
    every = sum(category.objects for category in matched[0].ranges[size_range_of("")])
    objects += [int(every[mask].sum()) for mask in masks]
    values = [
        [
            *(bootstrap.average_precision(model, metric, weights) for metric in metrics),
            *(bootstrap.average_precision(model, "AP", weights * mask) for mask in masks),
        ]
        for model in matched
    ]
    return np.array(values), objects


def main(folder: str, *uris: str) -> None:
    files, sites, names, truth = read_scenes(Path(folder))
    counted = Counter[str]()
    for site, image in zip(sites, truth, strict=True):
        counted[site] += len(image)
    largest = [site for site, _ in counted.most_common(SITES)]
    matched = [match_images(scaled_images(truth, detect(uri, files, names)), len(names), coco.IOU) for uri in uris]
    values, objects = gains(matched, sites, largest)
    pairs = [values[b] - values[a] for a, b in combinations(range(len(uris)), 2)]
    deviation = np.sqrt(np.mean([np.nanvar(pair, axis=1) for pair in pairs], axis=0))
    correlation = np.mean([_correlate(pair) for pair in pairs], axis=0)
    figures: dict[str, Any] = {
        "images": len(files),
        "figures": [SMALL_METRIC, *(name for name in boxes.BUCKETS if name != "large"), *largest],
        "objects": objects,
        "deviation": deviation.round(5).tolist(),
        "correlation": correlation.round(3).tolist(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _correlate(rows: Floats) -> Floats:
    complete = ~np.isnan(rows).any(axis=0)
    return np.asarray(np.corrcoef(rows[:, complete]))


if __name__ == "__main__":
    main(*sys.argv[1:])
