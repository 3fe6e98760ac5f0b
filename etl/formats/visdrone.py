"""VisDrone txt: one `x,y,w,h,score,category,truncation,occlusion` per line, in pixels, with fixed categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.boxes import corners
from etl.errors import ConfigError
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.layout import place_images, write_text
from etl.formats.text import excerpt, has_entries, integer, malformed, numbers, read_lines, shortest

SUFFIX = ".txt"
CATEGORIES = (
    "ignored regions",
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
    "others",
)
_IGNORED = ("ignored regions", "others")
_FIELDS = 8
_EXPECTED = "x,y,w,h,score,category,truncation,occlusion"


def is_label(data: bytes) -> bool:
    """Return whether a txt file looks like labels: empty, or with a line of eight numbers."""
    return has_entries(data, lambda line: _fields(line) is not None)


def read_label(data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
    """Return the labels of one file; ignored regions, others and rows of score 0 become ignore regions."""
    return read_lines(data, file, _read_line)


def _fields(line: str) -> list[float] | None:
    words = [word.strip() for word in line.split(",")]
    while words and words[-1] == "":  # some files end every line with a comma
        words.pop()
    return numbers(words) if len(words) == _FIELDS else None


def _read_line(line: str, number: int) -> LabelBox | BadBox:
    fields = _fields(line)
    if fields is None:
        return malformed(number, line, _EXPECTED)
    x, y, w, h, score = fields[:5]
    category, truncated, occluded = map(integer, fields[5:])
    if (
        category is None
        or truncated is None
        or occluded is None
        or not math.isfinite(x + w)
        or not math.isfinite(y + h)
    ):
        return malformed(number, line, _EXPECTED)
    if not 0 <= category < len(CATEGORIES):
        expected = f"a category from 0 to {len(CATEGORIES) - 1}"
        return BadBox("unknown_category_id", excerpt(line), expected, number)
    name = CATEGORIES[category]
    return LabelBox(
        name,
        (x, y, x + w, y + h),
        number,
        empty=w <= 0 or h <= 0,
        ignore=name in _IGNORED or score == 0,
        truncated=truncated,
        occluded=occluded,
    )


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"{split}/images/{name}" if split else f"images/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write one label file per labelled image; ConfigError for a category that VisDrone does not have."""
    for name in categories:
        if name not in CATEGORIES:
            raise ConfigError("visdrone", "category", repr(name), f"one of {', '.join(CATEGORIES)}")
    written = []
    for image in place_images(images, annotations):
        if image.labelled:
            folder = out / image.split if image.split else out
            label = (folder / "annotations" / image.name).with_suffix(SUFFIX)
            written.append(write_text(label, "".join(map(_line, image.boxes))))
    return written


def _line(box: Mapping[str, Any]) -> str:
    x0, y0, x1, y1 = corners(box)
    xywh = ",".join(map(shortest, (x0, y0, x1 - x0, y1 - y0)))
    score = 0 if box["ignore"] or box["crowd"] else 1
    return f"{xywh},{score},{CATEGORIES.index(box['category'])},{box['truncated'] or 0},{box['occluded'] or 0}\n"
