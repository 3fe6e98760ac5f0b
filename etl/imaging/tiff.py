"""The tags of a TIFF that say what its pixels are and where they lie: bands, bits, pages, georeference."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 255, 256, 257, 258, 262
_ORIENTATION, _SAMPLES, _EXTRA, _FORMAT, _NODATA = 274, 277, 338, 339, 42113
_SCALE, _TIE_POINTS, _TRANSFORM, _GEO_KEYS = 33550, 33922, 34264, 34735  # GeoTIFF
_TAGS = {
    _SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT, _NODATA,
    _SCALE, _TIE_POINTS, _TRANSFORM, _GEO_KEYS,
}  # fmt: skip
_MODEL, _PIXEL_MEANS, _GEOGRAPHIC, _PROJECTED = 1024, 1025, 2048, 3072  # keys of the GeoKey directory
_CODE_OF_MODEL = {1: _PROJECTED, 2: _GEOGRAPHIC}  # the key with the code of the coordinate system that pixels are in
_POINT, _USER_DEFINED = 2, 32767
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q"}  # of tags that hold whole numbers
_DOUBLES = {_SCALE: "d", _TIE_POINTS: "d", _TRANSFORM: "d"}
_DOUBLE = 12
_TEXT = 2
_MOST_VALUES, _MOST_TAGS, _MOST_PAGES = 4096, 4096, 10_000  # beyond, the file is damaged
_REDUCED_OR_MASK, _OLD_REDUCED = 0b101, 2
_KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint", 5: "complex", 6: "complex"}
_ALPHA = (1, 2)

Tags = Mapping[int, tuple[float, ...] | str]


class GeoReference(NamedTuple):
    """Where the pixels of an image lie in a coordinate system."""

    epsg: int  # code of the coordinate system
    across: tuple[float, float]  # what a pixel to the right adds to x and y
    down: tuple[float, float]  # what a pixel further down adds
    origin: tuple[float, float]  # of the upper left corner of the image

    def place(self, column: float, row: float) -> tuple[float, float]:
        """Return the x and y of a point in pixels from the upper left corner."""
        (ax, ay), (dx, dy), (x, y) = self.across, self.down, self.origin
        return x + column * ax + row * dx, y + column * ay + row * dy


@dataclass(frozen=True)
class TiffLayout:
    """What the first page of a TIFF holds, and the number of its pages."""

    width: int  # as stored
    height: int
    kind: str  # of a sample: uint8, uint16, float32, ...
    bands: int
    photometric: int
    extra: tuple[int, ...]  # the meaning of the last bands
    orientation: int
    nodata: float | None  # GDAL's
    pages: int = 1
    georeference: GeoReference | None = None  # None without one, or without an EPSG code

    @property
    def alpha(self) -> bool:
        """Whether the first band behind the colours is their opacity."""
        return bool(self.extra) and self.extra[0] in _ALPHA


def read_layout(file: BinaryIO) -> TiffLayout | None:
    """Return the layout of a TIFF; None of what is no TIFF, or is damaged."""
    try:
        pages = list(_directories(file))
    except (struct.error, ValueError, OverflowError):
        return None
    if not pages:
        return None
    first = pages[0]
    bits = _numbers(first, _BITS, (1,))
    kind = _KINDS.get(_numbers(first, _FORMAT, (1,))[0], "unknown")
    photometric = _numbers(first, _PHOTOMETRIC, (0,))[0]
    return TiffLayout(
        width=_numbers(first, _WIDTH, (0,))[0],
        height=_numbers(first, _HEIGHT, (0,))[0],
        kind=f"{kind}{max(bits)}",
        bands=_numbers(first, _SAMPLES, (3 if photometric in (2, 6) and len(bits) == 3 else 1,))[0],
        photometric=photometric,
        extra=_numbers(first, _EXTRA, ()),
        orientation=_numbers(first, _ORIENTATION, (1,))[0],
        nodata=_nodata(first),
        pages=1 + sum(_is_page(page, first) for page in pages[1:]),
        georeference=_georeference(first),
    )


def _georeference(tags: Tags) -> GeoReference | None:
    keys = _numbers(tags, _GEO_KEYS, ())
    values = {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
    model = values.get(_MODEL, 1 if _PROJECTED in values else 2)
    epsg = values.get(_CODE_OF_MODEL.get(model, 0), _USER_DEFINED)
    matrix, scale, ties = (_floats(tags, tag) for tag in (_TRANSFORM, _SCALE, _TIE_POINTS))
    if epsg in (0, _USER_DEFINED):
        return None
    if len(matrix) == 16:
        across, down, origin = (matrix[0], matrix[4]), (matrix[1], matrix[5]), (matrix[3], matrix[7])
    elif len(scale) == 3 and len(ties) == 6:
        across, down = (scale[0], 0.0), (0.0, -scale[1])
        origin = (ties[3] - ties[0] * scale[0], ties[4] + ties[1] * scale[1])
    else:
        return None
    found = GeoReference(epsg, across, down, origin)
    return found._replace(origin=found.place(-0.5, -0.5)) if values.get(_PIXEL_MEANS) == _POINT else found


def _floats(tags: Tags, tag: int) -> tuple[float, ...]:
    value = tags.get(tag, ())
    return () if isinstance(value, str) else value


def _is_page(tags: Tags, first: Tags) -> bool:
    """Return whether a directory is a picture of its own, not a mask or a smaller copy of the first."""
    if _numbers(tags, _SUBFILE, (0,))[0] & _REDUCED_OR_MASK or _numbers(tags, _OLD_SUBFILE, (1,))[0] == _OLD_REDUCED:
        return False
    (width, height), (own_width, own_height) = (
        (_numbers(page, _WIDTH, (1,))[0], _numbers(page, _HEIGHT, (1,))[0]) for page in (first, tags)
    )
    smaller = own_width <= width / 1.5 and own_height <= height / 1.5
    alike = abs(own_width * height - own_height * width) <= 2 * max(width, height)  # pyramids without the tag
    return not (smaller and alike)


def _directories(file: BinaryIO) -> Iterator[Tags]:
    """Yield the tags of each directory in the main chain."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return
    version = struct.unpack(order + "H", start[2:4])[0]
    if version not in (42, 43):
        return
    is_big = version == 43
    place = struct.unpack(order + ("Q" if is_big else "I"), start[8:16] if is_big else start[4:8])[0]
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        tags, place = _directory(file, place, order, is_big)
        yield tags


def _directory(file: BinaryIO, place: int, order: str, is_big: bool) -> tuple[Tags, int]:
    """Return the tags of a directory, and where the next one is; 0 for the last."""
    count_format, offset_format, entry_size = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    width = struct.calcsize(order + offset_format)  # bytes of an offset
    file.seek(place)
    (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(order + count_format)))
    if count > _MOST_TAGS:
        raise ValueError("too many tags")
    entries = file.read(count * entry_size)
    rest = file.read(width)
    following = struct.unpack(order + offset_format, rest)[0] if len(rest) == width else 0
    tags: dict[int, tuple[float, ...] | str] = {}
    for start in range(0, len(entries) - entry_size + 1, entry_size):
        entry = entries[start : start + entry_size]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        (number,) = struct.unpack(order + offset_format, entry[4 : 4 + width])
        value = entry[-width:]
        form = _DOUBLES.get(tag) if kind == _DOUBLE else "s" if kind == _TEXT else _TYPES.get(kind)
        if tag not in _TAGS or number > _MOST_VALUES or form is None:
            continue
        size = number * struct.calcsize(order + form)
        if size > len(value):
            file.seek(struct.unpack(order + offset_format, value)[0])
            value = file.read(size)
        if kind == _TEXT:
            tags[tag] = value[:size].decode("ascii", "replace").strip("\0 ")
        elif number:
            tags[tag] = struct.unpack(f"{order}{number}{form}", value[:size])
    return tags, following


def _numbers(tags: Tags, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return default if isinstance(value, str) else tuple(map(int, value))


def _nodata(tags: Tags) -> float | None:
    try:
        return float(str(tags[_NODATA]))
    except (KeyError, ValueError):
        return None
