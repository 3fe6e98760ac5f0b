"""DOTA txt: four corners, class and difficulty per line, in pixels, below an optional header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.boxes import corners, hull
from etl.errors import ConfigError
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.layout import Placed, load_extra, place_images, write_text
from etl.formats.text import has_entries, has_separators, integer, malformed, numbers, read_lines, shortest

SUFFIX = ".txt"
_CORNERS = 8  # numbers of a line: x y of four corners
_HEADER = re.compile(r"(imagesource|gsd)\s*:\s*(.*)", re.IGNORECASE)
_EXPECTED = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"
_CLOSE = 1e-6  # pixels; a polygon whose hull differs less from the box is written


def is_label(data: bytes) -> bool:
    """Return whether a txt file looks like labels: empty, with a header, or with a line of corners and class."""
    return has_entries(data, lambda line: bool(_HEADER.fullmatch(line)) or _split(line) is not None)


def read_label(data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
    """Return the labels of one file: hulls of its quadrilaterals, these as polygons, and the header as `extra`."""
    header: dict[str, object] = {}

    def read_line(line: str, number: int) -> LabelBox | BadBox | None:
        if match := _HEADER.fullmatch(line):
            header[match[1].lower()] = _header_value(match[2])
            return None
        return _read_line(line, number, header)

    return read_lines(data, file, read_line)


def _header_value(text: str) -> object:
    value = numbers([text])
    return text if value is None else value[0]


def _split(line: str) -> tuple[list[float], str, int] | None:
    """Return polygon, class and difficulty of a line; the class may have blanks or be in quotes."""
    words = line.split()
    polygon, rest = numbers(words[:_CORNERS]), words[_CORNERS:]
    if polygon is None or not rest:
        return None
    difficult: int | None = 0
    if len(rest) > 1 and numbers(rest[-1:]) is not None:
        text = rest.pop()
        difficult = integer(float(text)) if re.fullmatch(r"\d+", text, re.ASCII) else None
    name = " ".join(rest)
    if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1].strip()
    return (polygon, name, difficult) if difficult is not None and name else None


def _read_line(line: str, number: int, header: Mapping[str, object]) -> LabelBox | BadBox:
    entry = _split(line)
    if entry is None:
        separated = "words separated by blanks: " if has_separators(line, _CORNERS) else ""
        return malformed(number, line, separated + _EXPECTED)
    polygon, name, difficult = entry
    x0, y0, x1, y1 = hull(polygon)
    return LabelBox(
        name,
        (x0, y0, x1, y1),
        number,
        empty=x1 <= x0 or y1 <= y0,
        difficult=difficult,
        polygon=tuple(polygon),
        extra=dict(header),
    )


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"{split}/images/{name}" if split else f"images/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write one label file per labelled image; ignore regions become difficult; ConfigError for a name with blanks."""
    for name in categories:
        if not name or len(name.split()) != 1 or name != name.strip():
            raise ConfigError("dota", "category", repr(name), "a name without blanks; ontology.rename gives another")
    written = []
    for image in place_images(images, annotations):
        if image.labelled:
            folder = out / image.split if image.split else out
            label = (folder / "labelTxt" / image.name).with_suffix(SUFFIX)
            written.append(write_text(label, _header(image) + "".join(map(_line, image.boxes))))
    return written


def _header(image: Placed) -> str:
    values = load_extra(image.boxes[0]) if image.boxes else {}
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
