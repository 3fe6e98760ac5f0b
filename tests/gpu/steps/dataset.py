"""Draw a synthetic dataset and build a snapshot of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib.util import find_spec

import yaml

from tests.gpu.command import speck
from tests.gpu.record import Record


@dataclass(frozen=True)
class Size:
    """The images, how they are cut, and the processes that do it."""

    images: int
    side: int
    tile: int
    overlap: float
    workers: int
    both_nights: bool = False
    sample: int | None = None  # images that the snapshot uses


CORES = os.cpu_count() or 1
FULL = {
    "small": Size(63, 768, 640, 0.2, workers=min(CORES, 12)),
    "large": Size(210, 1700, 640, 0.5, workers=min(CORES, 14), both_nights=True),  # 25 tiles an image
}
QUICK = {
    "small": Size(50, 384, 192, 0.0, workers=0, sample=28),
    "large": Size(50, 384, 192, 0.0, workers=2, both_nights=True, sample=24),
}


def run(record: Record, name: str) -> None:
    """Save the dataset file and the URI of the snapshot for later steps."""
    size = (QUICK if record.quick else FULL)[name]
    folder = record.work / name
    start = time.monotonic()
    demo = speck("demo-data", folder, "--images", size.images, "--size", size.side, "--workers", size.workers)
    drawn = time.monotonic()
    record.figure("drawing", drawn - start, "s")
    if size.both_nights:
        (folder / "night_2").rename(folder / "dataset" / "night_2")
    images = demo["dataset"]
    settings = {
        "name": name,
        "store": str(record.work / "store"),
        "source": {
            "format": "coco", "images": images, "annotations": images, "group": demo["group"], "split": {"val": 0.15},
            "sample": size.sample,
        },
        "tile": {"size": size.tile, "overlap": size.overlap, "scales": [1.0]},
        "augment": {"copies": 0, "mosaic": 0, "copy_paste": 0},
        "train": {"weights": "scratch"},
    }  # fmt: skip
    file = record.work / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings))
    workers = size.workers if size.both_nights and find_spec("distributed") else 0
    built = speck("build", file, "--workers", workers)
    record.figure("building", time.monotonic() - drawn, "s")
    record.save(name, {"config": str(file), "snapshot": built["snapshot"], "images": images})
    record.fact("tiles", built["samples"])
