"""Pascal VOC XML: one file per image, boxes in pixel numbers from 1, both ends included."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree  # to build and write; files are parsed by defusedxml
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from etl.boxes import hull, rotated_corners
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.layout import Placed, category_index, place_images, write_text
from etl.formats.text import decode, excerpt, image_labels, integer, numbers, shortest, unreadable

SUFFIX = ".xml"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ROTATED = ("cx", "cy", "w", "h", "angle")
_EXCHANGED = 1  # px: a smaller box than a pixel is written with max below min
_BOXES = ("bndbox", "robndbox")
_OBJECT = "object"
_FLAGS = ("difficult", "truncated", "occluded", "ignore", "crowd")
_FILENAME = re.compile(r"<filename>([^<]{0,4096})</filename>")
_EXPECTED = "a VOC annotation without DTD or entities"


def is_label(data: bytes) -> bool:
    """Return whether an xml file looks like labels: it has an `annotation` element."""
    text = decode(data)
    return "<annotation" in text if text is not None else b"<annotation" in data


def image_name(data: bytes) -> str | None:
    """Return the image name that a label file holds, None if it holds none."""
    match = _FILENAME.search(decode(data) or "")
    return html.unescape(match[1].strip()) or None if match is not None else None


def read_label(data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
    """Return the labels of one file; its folder is not used."""
    try:
        root, line_of = _parse(data)
    except ElementTree.ParseError as error:
        return unreadable(file, f"invalid XML: {error}", _EXPECTED)
    except DefusedXmlException as error:
        return unreadable(file, f"forbidden XML: {type(error).__name__}", _EXPECTED)
    except (ValueError, LookupError) as error:  # an unknown encoding
        return unreadable(file, str(error), _EXPECTED)
    if root.tag != "annotation":
        return unreadable(file, f"<{root.tag}>", _EXPECTED)
    objects = [_read_object(element, line_of.get(element)) for element in root.findall(_OBJECT)]
    misplaced = [_misplaced(element, line_of.get(element)) for element in _find_misplaced(root)]
    labels = image_labels(file, [*objects, *misplaced], _declared_wh(root))
    return replace(labels, declared_name=(root.findtext("filename") or "").strip() or None)


class _Builder(ElementTree.TreeBuilder):
    """A tree builder that records the line on which each element starts."""

    parser: Any

    def __init__(self) -> None:
        super().__init__()
        self.line_of: dict[ElementTree.Element, int] = {}

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        element = super().start(tag, attrs)
        self.line_of[element] = self.parser.CurrentLineNumber
        return element


def _parse(data: bytes) -> tuple[ElementTree.Element, Mapping[ElementTree.Element, int]]:
    builder = _Builder()
    parser = DefusedXMLParser(target=builder, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    builder.parser = parser.parser
    text = decode(data)
    parser.feed(data if text is None else text)  # as text: a byte order mark overrides the declared encoding
    root: ElementTree.Element = parser.close()
    return root, builder.line_of


def _declared_wh(root: ElementTree.Element) -> tuple[int, int] | None:
    sides = numbers([(root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")])
    width, height = map(integer, sides) if sides is not None else (None, None)
    return (width, height) if width and height and width > 0 and height > 0 else None


def _find_misplaced(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """Yield the objects that are no children of the root, and the boxes that are in no object or a part of one."""
    waiting = [(child, root, False) for child in reversed(root)]
    while waiting:
        element, parent, in_object = waiting.pop()
        name = _local_name(element)
        is_object = name == _OBJECT
        if is_object:
            is_misplaced = parent is not root or element.tag != _OBJECT
        elif name in _BOXES:
            is_misplaced = _local_name(parent) not in (_OBJECT, "part")
        else:
            is_misplaced = not in_object and element.find(_SIDES[0]) is not None
        if is_misplaced:
            yield element
        waiting += [(child, element, in_object or is_object) for child in reversed(element)]


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2].lower()


def _misplaced(element: ElementTree.Element, line: int | None) -> BadBox:
    found = f"<{element.tag}> {' '.join((element.findtext('name') or '').split())}".rstrip()
    return BadBox("misplaced_object", excerpt(found), "an <object> in <annotation>, with a <bndbox> in it", line)


def _find_repeated(element: ElementTree.Element) -> str | None:
    """Return the first element that an object holds twice, so that it is unknown which one is meant; None if none."""
    for path, names in (("", ("name", *_BOXES, *_FLAGS)), ("bndbox/", _SIDES), ("robndbox/", _ROTATED)):
        for name in names:
            if len(element.findall(path + name)) > 1:
                return path + name
    return None


def _read_object(element: ElementTree.Element, line: int | None) -> LabelBox | BadBox:
    if (repeated := _find_repeated(element)) is not None:
        values = ", ".join(repr((each.text or "").strip()) for each in element.findall(repeated))
        return BadBox("repeated_key", excerpt(f"{repeated}: {values}"), "each element once", line)
    name = (element.findtext("name") or "").strip()
    shape = _read_rotated(element) if element.find("bndbox") is None else None
    shape = _read_upright(element) if shape is None else shape
    if shape is None:
        found = ", ".join(f"{side} {(element.findtext(f'bndbox/{side}') or '').strip()!r}" for side in _SIDES)
        return BadBox("malformed_box", excerpt(found), "a bndbox of four finite numbers", line)
    if not name:
        return BadBox("missing_category", "no name", "an object with a name", line)
    leaves = {child.tag: (child.text or "").strip() for child in element if len(child) == 0}
    flags = {key: _flag(leaves[key]) for key in _FLAGS if key in leaves}
    known = {key: value for key, value in flags.items() if value is not None}
    return LabelBox(
        name,
        shape.xyxy,
        line,
        empty=shape.empty,
        crowd=bool(known.get("crowd", 0)),
        ignore=bool(known.get("ignore", 0)),
        difficult=known.get("difficult", 0),
        truncated=known.get("truncated", 0),
        occluded=known.get("occluded", 0),
        polygon=shape.polygon,
        extra={k: v for k, v in leaves.items() if k != "name" and k not in known and v not in ("", "Unspecified")},
        corrected=shape.corrected,
    )


class _Shape(NamedTuple):
    """The box of an object, in half-open pixels."""

    xyxy: tuple[float, float, float, float]
    empty: bool
    polygon: tuple[float, ...] | None = None
    corrected: str | None = None


def _read_upright(element: ElementTree.Element) -> _Shape | None:
    """Return the `bndbox` of an object, None unless it is four numbers; exchanged corners are sorted."""
    sides = _numbers(element, "bndbox", _SIDES)
    if sides is None:
        return None
    xmin, ymin, xmax, ymax = sides
    corrected = None
    if xmin - xmax >= _EXCHANGED or ymin - ymax >= _EXCHANGED:
        (xmin, xmax), (ymin, ymax) = sorted((xmin, xmax)), sorted((ymin, ymax))
        corrected = "sorted_corners"
    empty = xmax <= xmin or ymax <= ymin
    return _Shape((xmin - 1, ymin - 1, xmax, ymax), empty, corrected=corrected)  # 1-based, last pixel included


def _read_rotated(element: ElementTree.Element) -> _Shape | None:
    """Return the hull of the `robndbox` of roLabelImg, None unless it is five numbers; the angle is in radians."""
    values = _numbers(element, "robndbox", _ROTATED)
    if values is None:
        return None
    cx, cy, w, h, angle = values
    polygon = rotated_corners(cx, cy, w, h, angle)
    return _Shape(hull(polygon), w <= 0 or h <= 0, polygon)


def _numbers(element: ElementTree.Element, tag: str, names: Sequence[str]) -> list[float] | None:
    return numbers([(element.findtext(f"{tag}/{name}") or "").strip() for name in names])


def _flag(text: str) -> int | None:
    value = numbers([text])
    return integer(value[0]) if value is not None else None


def image_file(name: str, split: str | None) -> str:
    """Return where an image belongs in the written dataset, relative to its folder."""
    return f"JPEGImages/{name}"


def write(out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
    """Write one XML file per labelled image and the image list of each split.

    A box of at most 1 px has max <= min in this format and reads back as empty.
    """
    index = category_index(categories)
    written, listed = [], defaultdict(list)
    for image in place_images(images, annotations):
        if image.labelled:
            label = (out / "Annotations" / image.name).with_suffix(SUFFIX)
            written.append(write_text(label, _document(image, index)))
        if image.split:
            listed[image.split].append(str(Path(image.name).with_suffix("").as_posix()))
    sets = out / "ImageSets" / "Main"
    return [
        *written,
        *(write_text(sets / f"{k}.txt", "".join(f"{stem}\n" for stem in listed[k])) for k in sorted(listed)),
    ]


def _document(image: Placed, index: Mapping[str, int]) -> str:
    root = ElementTree.Element("annotation")
    folder, _, filename = image_file(image.name, image.split).rpartition("/")
    _add(root, {"folder": folder, "filename": filename})
    size = {"width": image.row["width"], "height": image.row["height"], "depth": 3}
    _add(ElementTree.SubElement(root, "size"), size)
    _add(root, {"segmented": 0})
    for box in image.boxes:
        index[box["category"]]  # raises for a category that is not to be written
        _add_object(root, box)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_object(root: ElementTree.Element, box: Mapping[str, Any]) -> None:
    element = ElementTree.SubElement(root, "object")
    ignored = {key: 1 for key in ("ignore", "crowd") if box[key]}
    difficult = max(box["difficult"] or 0, int(bool(ignored)))
    flags = {"truncated": box["truncated"] or 0, "occluded": box["occluded"] or 0, "difficult": difficult, **ignored}
    _add(element, {"name": box["category"], "pose": "Unspecified", **flags})
    ends = (box["x0"] + 1, box["y0"] + 1, box["x1"], box["y1"])
    sides = {side: shortest(end) for side, end in zip(_SIDES, ends, strict=True)}
    _add(ElementTree.SubElement(element, "bndbox"), sides)


def _add(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)
