"""The image entries of a COCO document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from etl.formats.coco_numbers import is_id, whole
from etl.formats.coco_repeats import Repeated, bad_entry
from etl.formats.labels import BadBox
from etl.formats.text import excerpt

NO_IMAGE = ""  # file name of entries that belong to no listed image
_NAMES = ("file_name", "coco_url", "filename", "path", "flickr_url")  # COCO's own first, then LVIS's
_MOST_PIXELS = 2**31  # of a side: the columns have 32 bits
_LONGEST = 4096  # characters of a path


class ImageRow(NamedTuple):
    """An image of a document: its id, its file name and its size as declared."""

    key: Any
    name: str
    declared_wh: tuple[int, int] | None


def read_images(rows: Iterable[Any], start: int) -> tuple[list[ImageRow], list[BadBox]]:
    """Return the usable image entries, and the others; `start` is the number of the first one in its list."""
    found, bad = [], []
    for number, row in enumerate(rows, start):
        if isinstance(row, Repeated):
            bad.append(bad_entry(row, f"images[{number}]"))
            continue
        name = _file_name(row) if isinstance(row, dict) else None
        if name is None or not is_id(row.get("id")):
            place = f"images[{number}]"
            bad.append(BadBox("malformed_image", excerpt(row), "an image with id and file_name", None, place))
        else:
            found.append(ImageRow(row["id"], name, _declared_wh(row)))
    return found, bad


def _file_name(row: dict[str, Any]) -> str | None:
    given = (row.get(key) for key in _NAMES)
    return next((name for name in given if isinstance(name, str) and 0 < len(name) <= _LONGEST), None)


def _declared_wh(row: dict[str, Any]) -> tuple[int, int] | None:
    width, height = row.get("width"), row.get("height")
    if not (type(width) is int and type(height) is int and max(width, height) < _MOST_PIXELS):
        width, height = whole(width), whole(height)
    return (width, height) if width and height and width > 0 and height > 0 else None
