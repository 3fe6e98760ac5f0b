"""DOTA txt: four corners, class and difficulty a line, in pixels, below an optional header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.boxes import corners, hull
from etl.errors import ConfigError
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.layout import Placed, placed, save, stored_extra
from etl.formats.text import decode, integer, lines, malformed, numbers, shortest, unreadable

SUFFIX = ".txt"
_CORNERS = 8  # numbers: x y of four corners
_HEADER = re.compile(r"(imagesource|gsd)\s*:\s*(.*)", re.IGNORECASE)
_EXPECTED = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
_CLOSE = 1e-6  # pixels: a polygon whose hull is this near the box is the box's own


def is_label(data: bytes) -> bool:
    """Return whether a txt file looks like labels: empty, with a header, or with a line of corners and class."""
    text = decode(data)
    if text is None:
        return False
    rows = [line for _, line in lines(text)]
    return not rows or any(_HEADER.fullmatch(row) or _split(row) is not None for row in rows)


def read_label(data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
    """Return the hulls of one file's quadrilaterals, which are kept as polygons, each with the header as extra."""
    text = decode(data)
    if text is None:
        return unreadable(file, "undecodable bytes")
    header: dict[str, object] = {}
    entries: list[LabelBox | BadBox] = []
    for number, line in lines(text):
        if match := _HEADER.fullmatch(line):
            header[match[1].lower()] = _header_value(match[2])
        else:
            entries.append(_read_line(line, number, header))
    return ImageLabels(
        file,
        boxes=tuple(entry for entry in entries if isinstance(entry, LabelBox)),
        bad=tuple(entry for entry in entries if isinstance(entry, BadBox)),
    )


def _header_value(text: str) -> object:
    value = numbers([text])
    return text if value is None else value[0]


def _split(line: str) -> tuple[list[float], str, int] | None:
    words = line.split()
    if len(words) not in (_CORNERS + 1, _CORNERS + 2):
        return None
    corners, name = numbers(words[:_CORNERS]), words[_CORNERS]
    difficult: int | None = 0
    if len(words) > _CORNERS + 1:
        text = words[_CORNERS + 1]
        difficult = integer(float(text)) if re.fullmatch(r"\d+", text, re.ASCII) else None
    return None if corners is None or difficult is None else (corners, name, difficult)


def _read_line(line: str, number: int, header: Mapping[str, object]) -> LabelBox | BadBox:
    entry = _split(line)
    if entry is None:
        return malformed(number, line, _EXPECTED)
    corners, name, difficult = entry
    x0, y0, x1, y1 = hull(corners)
    return LabelBox(
        name,
        (x0, y0, x1, y1),
        number,
        empty=x1 <= x0 or y1 <= y0,
        difficult=difficult,
        polygon=tuple(corners),
        extra=dict(header),
    )


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"{split}/images/{name}" if split else f"images/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write a label file per labelled image; ignored boxes become difficult; ConfigError for a name with blanks."""
    for name in categories:
        if not name or len(name.split()) != 1 or name != name.strip():
            raise ConfigError("dota", "category", repr(name), "a name without blanks; ontology.rename gives another")
    written = []
    for image in placed(images, annotations):
        if image.labelled:
            folder = out / image.split if image.split else out
            label = (folder / "labelTxt" / image.name).with_suffix(SUFFIX)
            written.append(save(label, _header(image) + "".join(map(_line, image.boxes))))
    return written


def _header(image: Placed) -> str:
    values = stored_extra(image.boxes[0]) if image.boxes else {}
    known = {key: values[key] for key in ("imagesource", "gsd") if key in values}
    return "".join(f"{key}:{shortest(v) if isinstance(v, float) else v}\n" for key, v in known.items())


def _line(box: Mapping[str, Any]) -> str:
    x0, y0, x1, y1 = corners(box)
    polygon = box["polygon"]
    if not polygon or len(polygon) != _CORNERS or _distance(hull(polygon), (x0, y0, x1, y1)) > _CLOSE:
        polygon = (x0, y0, x1, y0, x1, y1, x0, y1)
    difficult = max(box["difficult"] or 0, int(bool(box["ignore"] or box["crowd"])))
    return f"{' '.join(map(shortest, polygon))} {box['category']} {difficult}\n"


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(p - q) for p, q in zip(a, b, strict=True))
