"""YOLO txt: one normalised cxcywh box or polygon per line, classes by index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from etl.boxes import corners, hull
from etl.formats import yolo_hints
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.layout import Placed, category_index, place_images, write_text
from etl.formats.text import excerpt, has_entries, malformed, numbers, read_lines, shortest

SUFFIX = ".txt"
_BOX = 5  # class cx cy w h
_POLYGON = 7  # class and at least three points


def is_label(data: bytes) -> bool:
    """Return whether a txt file looks like labels: empty, or with a line of numbers long enough for a box."""
    return has_entries(data, lambda line: len(line.split()) >= _BOX and numbers(line.split()) is not None)


def read_label(
    data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None, kpt_shape: tuple[int, int] | None = None
) -> ImageLabels:
    """Return the labels of an image of size `wh`, in its pixels; without names the class index is the name.

    With `kpt_shape`, the number of keypoints and of the numbers of each, rows are boxes with or without keypoints.
    """
    return read_lines(data, file, lambda line, number: _read_line(line, number, wh, names, kpt_shape))


def _read_line(
    line: str, number: int, wh: tuple[int, int], names: Sequence[str] | None, kpt_shape: tuple[int, int] | None
) -> LabelBox | BadBox:
    values = numbers(line.split())
    if (
        values is None
        or not values[0].is_integer()
        or not _is_form(len(values), kpt_shape)
        or (kpt_shape is None and len(values) > _BOX and yolo_hints.count_boxes(line) > 1)
    ):
        return yolo_hints.explain(line, number, values, kpt_shape)
    category, *places = values
    if category < 0 or (names is not None and category >= len(names)):
        expected = "a class from 0" if names is None else f"a class from 0 to {len(names) - 1}"
        return BadBox("unknown_category_id", excerpt(line), expected, number)
    polygon, extra = None, {}
    if len(values) == _BOX or kpt_shape is not None:
        xyxy, empty = _cxcywh_to_xyxy(places[:4], wh), places[2] <= 0 or places[3] <= 0
        extra = _keypoints(places[4:], wh, kpt_shape)
    else:
        polygon = tuple(place * wh[axis % 2] for axis, place in enumerate(places))
        x0, y0, x1, y1 = hull(places)
        xyxy, empty = hull(polygon), x1 <= x0 or y1 <= y0
    if not all(map(math.isfinite, polygon or xyxy)):
        return malformed(number, line, yolo_hints.EXPECTED)
    name = str(int(category)) if names is None else names[int(category)]
    return LabelBox(name, xyxy, number, empty=empty, polygon=polygon, extra=extra)


def _is_form(length: int, kpt_shape: tuple[int, int] | None) -> bool:
    """Return whether a row of so many numbers is a box, a polygon or, where they are declared, a box with keypoints."""
    if kpt_shape is not None:
        return length in (_BOX, _BOX + kpt_shape[0] * kpt_shape[1])
    return length == _BOX or (length >= _POLYGON and length % 2 == 1)


def _keypoints(values: Sequence[float], wh: tuple[int, int], kpt_shape: tuple[int, int] | None) -> dict[str, Any]:
    """Return the keypoints of a row in pixels, each with its visibility if it has one."""
    if kpt_shape is None or not values:
        return {}
    scale = (*wh, 1)
    points = [values[start : start + kpt_shape[1]] for start in range(0, len(values), kpt_shape[1])]
    return {"keypoints": [[value * scale[axis] for axis, value in enumerate(point)] for point in points]}


def _cxcywh_to_xyxy(cxcywh: Sequence[float], wh: tuple[int, int]) -> tuple[float, float, float, float]:
    (cx, cy, w, h), (width, height) = cxcywh, wh
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"images/{split}/{name}" if split else f"images/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write one label file per labelled image and data.yaml; leave out ignore regions and crowds, which YOLO lacks."""
    index = category_index(categories)
    written = []
    for image in place_images(images, annotations):
        if image.labelled:
            label = out / image_file(image.name, image.split).replace("images/", "labels/", 1)
            written.append(write_text(label.with_suffix(SUFFIX), _label_text(image, index)))
    present = set(images["split"].to_pylist())
    data: dict[str, object] = {"train": "images" if present == {None} else "images/train", "val": "images/val"}
    if "test" in present:
        data["test"] = "images/test"
    data["names"] = dict(enumerate(categories))
    return [*written, write_text(out / "data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))]


def _label_text(image: Placed, index: dict[str, int]) -> str:
    rows = []
    for box in image.boxes:
        if not (box["ignore"] or box["crowd"]):
            x0, y0, x1, y1 = corners(box)
            width, height = image.row["width"], image.row["height"]
            places = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            rows.append(f"{index[box['category']]} {' '.join(map(shortest, places))}\n")
    return "".join(rows)
