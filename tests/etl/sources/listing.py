"""Lay out the files of a source and list them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from etl.config import Config
from etl.sources.scan import SourceListing, scan

BOX = b"0 0.5 0.5 0.1 0.1\n"


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def scanned(folder: Path, guesses: Collection[str] | None = None, **source: Any) -> SourceListing:
    values = {"format": "yolo", "images": str(folder), "categories": ["car"], **source}
    return scan(Config.model_validate({"name": "cars", "store": str(folder / "store"), "source": values}), guesses)


def coco(*names: str) -> bytes:
    images = [{"id": number, "file_name": name, "width": 9, "height": 9} for number, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 2, 2]} for n in range(len(names))]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}).encode()


def told(found: SourceListing) -> set[tuple[str, str, str]]:
    return {(row["kind"], row["where"], row["reason"]) for row in found.rejects}
