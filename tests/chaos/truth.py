"""What a snapshot must hold, counted from the label files by a parser of its own."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

Boxes = Counter[tuple[str, str, tuple[float, ...]]]


def boxes_of_sources(folder: Path, names: tuple[str, ...], wh: tuple[int, int]) -> Boxes:
    """Return (image, class, box) of every line of the YOLO files beside the images."""
    found: Boxes = Counter()
    for file in folder.glob("*.txt"):
        for line in file.read_text().splitlines():
            category, *values = line.split()
            cx, cy, w, h = (float(value) * wh[axis % 2] for axis, value in enumerate(values))
            box = tuple(round(side, 2) for side in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
            found[file.with_suffix(".png").name, names[int(category)], box] += 1
    return found


def boxes_of_snapshot(images: bytes, annotations: bytes) -> Boxes:
    """Return (image, class, box) of every row of the tables, read without Speck."""
    path_of = {row["image_id"]: row["path"] for row in pq.read_table(io.BytesIO(images)).to_pylist()}
    found: Boxes = Counter()
    for row in pq.read_table(io.BytesIO(annotations)).to_pylist():
        box = tuple(round(row[side], 2) for side in ("x0", "y0", "x1", "y1"))
        found[path_of[row["image_id"]], row["category"], box] += 1
    return found
