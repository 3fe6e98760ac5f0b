"""Read one annotation of a COCO document, in any of the forms that exporters write."""

from __future__ import annotations

import math
from typing import Any

from etl.boxes import hull, rotated_corners
from etl.formats.coco_mask import Corners, Extent, extent, polygons
from etl.formats.coco_numbers import flag, number, whole
from etl.formats.coco_repeats import Repeated, bad_entry, unclear_keys
from etl.formats.labels import BadBox, LabelBox
from etl.formats.text import excerpt
from etl.json_text import LEVELS, is_deep

Json = dict[str, Any]

_COLUMNS = ("difficult", "truncated", "occluded")
_FLAGS = ("iscrowd", "ignore")
_BOX = "a bbox of four finite numbers: x, y, width, height"
KNOWN = frozenset(
    ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "track_id", "attributes")
)


def read_annotation(annotation: Any, number_in_list: int) -> LabelBox | BadBox:
    """Return the box of an annotation, without its category, or why it is none."""
    source = source_id(annotation, number_in_list)
    if not isinstance(annotation, dict):
        return BadBox("malformed_box", excerpt(annotation), _BOX, source_id=source)
    if is_deep(annotation):
        return BadBox(
            "malformed_box", excerpt(annotation), f"at most {LEVELS} levels of lists and objects", None, source
        )
    if isinstance(annotation, Repeated):
        return bad_entry(annotation, source)
    bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    found = _from_segmentation(segmentation) if bbox is None or bbox == [] else _from_bbox(bbox)
    if found is None:
        outline = f" and segmentation {excerpt(segmentation)}" if segmentation and not bbox else ""
        return BadBox("malformed_box", excerpt(f"bbox {excerpt(bbox)}{outline}"), _BOX, source_id=source)
    flags = {name: flag(annotation.get(name)) for name in _FLAGS}
    if (unclear := next((name for name in _FLAGS if flags[name] is None), None)) is not None:
        return BadBox("malformed_flag", f"{unclear} {excerpt(annotation[unclear])}", "0 or 1", source_id=source)
    return _label_box(annotation, found, flags, source)


def source_id(annotation: Any, number_in_list: int) -> str:
    """Return the id of an annotation as text; its place in the list in brackets if it has none."""
    given = annotation.get("id") if isinstance(annotation, dict) and "id" not in unclear_keys(annotation) else None
    return f"[{number_in_list}]" if given is None else excerpt(given)


def _from_bbox(bbox: Any) -> Extent | None:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return None
    x, y, w, h = (number(value) for value in bbox)
    if x is None or y is None or w is None or h is None:
        return None
    xyxy: Corners = (x, y, x + w, y + h)
    return Extent(xyxy, None) if all(map(math.isfinite, xyxy)) else None


def _from_segmentation(segmentation: Any) -> Extent | None:
    return extent(segmentation) if segmentation else None


def _label_box(annotation: Json, found: Extent, flags: dict[str, bool | None], source: str) -> LabelBox:
    attributes = annotation.get("attributes")
    nested = attributes if isinstance(attributes, dict) else {}
    columns = {name: _column(annotation, nested, name) for name in _COLUMNS}
    track = annotation.get("track_id", nested.get("track_id"))
    outline, whole_segmentation = _polygon(annotation.get("segmentation"))
    xyxy = found.xyxy
    if not annotation.get("segmentation") and (degrees := number(nested.get("rotation"))):
        outline = _rotated(xyxy, degrees)
        xyxy = hull(outline)
    x0, y0, x1, y1 = found.xyxy
    area = number(annotation.get("area"))
    return LabelBox(
        "",
        xyxy,
        empty=x1 <= x0 or y1 <= y0,
        crowd=bool(flags["iscrowd"]),
        ignore=bool(flags["ignore"]),
        difficult=columns["difficult"] or 0,
        truncated=columns["truncated"] or 0,
        occluded=columns["occluded"] or 0,
        area=found.area if area is None else area,
        polygon=outline,
        track_id=None if track is None else str(track),
        extra=_extra(annotation, {name for name, value in columns.items() if value is not None}, whole_segmentation),
        source_id=source,
    )


def _rotated(xyxy: Corners, degrees: float) -> tuple[float, ...]:
    """Return the outline of a box that CVAT writes as it was before its rotation."""
    x0, y0, x1, y1 = xyxy
    return rotated_corners((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, math.radians(degrees))


def _column(annotation: Json, attributes: Json, name: str) -> int | None:
    """Return a column's value in the annotation itself, else in CVAT's `attributes`."""
    return whole(annotation[name]) if name in annotation else whole(attributes.get(name))


def _extra(annotation: Json, read: set[str], segmentation: Any) -> Json:
    """Return what no column holds."""
    extra = {key: value for key, value in annotation.items() if key not in KNOWN and key not in read}
    attributes = annotation.get("attributes")
    if isinstance(attributes, dict):
        in_columns = {key for key in (*read, "track_id") if key not in annotation}
        attributes = {key: value for key, value in attributes.items() if key not in in_columns}
    if attributes:
        extra["attributes"] = attributes
    return extra if segmentation is None else {**extra, "segmentation": segmentation}


def _polygon(segmentation: Any) -> tuple[tuple[float, ...] | None, Any]:
    """Return the first polygon, and the whole segmentation if it is more than that: several polygons or a mask."""
    if not segmentation:
        return None, None
    outlines = polygons(segmentation)
    if not outlines:
        return None, segmentation
    return outlines[0], segmentation if len(outlines) > 1 else None
