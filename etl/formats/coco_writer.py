"""Write COCO JSON, one file per split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.boxes import corners
from etl.formats.layout import Placed, category_index, load_extra, place_images, write_text

_COLUMNS = ("difficult", "truncated", "occluded")


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"images/{split}/{name}" if split else f"images/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write annotations/instances_<split>.json; file names are relative to the image folder of the split."""
    index = category_index(categories)
    listed = [{"id": number, "name": name, "supercategory": "none"} for number, name in enumerate(categories, start=1)]
    by_split: defaultdict[str, list[tuple[int, Placed]]] = defaultdict(list)
    for number, image in enumerate(place_images(images, annotations), start=1):
        by_split[image.split or "all"].append((number, image))
    written, last = [], 0
    for split in sorted(by_split):
        rows = [(number, box) for number, image in by_split[split] for box in image.boxes]
        document = {
            "images": [_image(number, image) for number, image in by_split[split]],
            "annotations": [
                _annotation(last + count, number, index[box["category"]] + 1, box)
                for count, (number, box) in enumerate(rows, start=1)
            ],
            "categories": listed,
        }
        last += len(rows)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        written.append(write_text(out / "annotations" / f"instances_{split}.json", text + "\n"))
    return written


def _image(number: int, image: Placed) -> dict[str, Any]:
    return {"id": number, "file_name": image.name, "width": image.row["width"], "height": image.row["height"]}


def _annotation(number: int, image: int, category: int, box: Mapping[str, Any]) -> dict[str, Any]:
    x0, y0, x1, y1 = corners(box)
    extra = load_extra(box)
    whole = extra.pop("segmentation", None)
    polygon = [list(box["polygon"])] if box["polygon"] else []
    row = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0) if box["area"] is None else box["area"],
        "iscrowd": int(bool(box["crowd"])),
        "segmentation": polygon if whole is None else whole,
    }
    optional = {column: box[column] for column in _COLUMNS if box[column]}
    if box["ignore"]:
        optional["ignore"] = 1
    if box["track_id"] is not None:
        optional["track_id"] = box["track_id"]
    return {**extra, **optional, **row}
