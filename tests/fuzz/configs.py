"""Dataset YAML files."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from etl.config import load
from tests.fuzz.case import RIGHT, Case, Target, Targets, require
from tests.fuzz.mutations import mutate_yaml

FILES = (
    """\
name: d
store: store
source:
  format: coco
  images: images
  annotations: [a.json, b.json]
  group: '^([a-z]+)_'
  split: {val: 0.25, test: 0.1, seed: 0}
  max_rejects: 0.01
  exif: apply
ontology: {keep: [car, 're:bus.*'], rename: {a: b}, merge: {vehicle: [car, bus]}, min_side: 2, dropped_as: ignore}
tile: {size: 256, overlap: 0.25, scales: [1.0, 0.5]}
augment: {copies: 1, mosaic: 0.2, copy_paste: 0.1, rotate: 10}
train: {model: speck-micro, epochs: 3, batch: 8, options: {optimizer: AdamW, lr0: 0.004}}
evaluate: {precision: auto}
gate: {metric: auto, min_boxes: 30}
retention: {snapshots: 3}
schedule: {cron: '0 2 * * *', timezone: UTC}
""",
    """\
name: d
store: ${SPECK_FUZZ:-../store}
source: {format: yolo, images: x, categories: [a, b], split: {train: [x/*], val: [y/*]}}
""",
)


def read(file: Path, data: bytes) -> str:
    """Load a dataset file; what is loaded can be written and loaded again."""
    file.write_bytes(data)
    config = load(file)
    again = type(config).model_validate(config.resolved())
    require(again.resolved() == config.resolved(), "the resolved configuration reads differently")
    return RIGHT


def prepare(folder: Path) -> Target:
    """Return the target of dataset files."""

    def case(rng: random.Random) -> Case:
        data = mutate_yaml(rng, rng.choice(FILES).encode())
        return Case("d.yaml", data, partial(read, folder / "d.yaml", data))

    return case


TARGETS: Targets = {"configs": (12, prepare)}
