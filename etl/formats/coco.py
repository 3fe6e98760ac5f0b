"""COCO JSON: files that list images, annotations and categories, joined by ids."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.errors import SourceError
from etl.formats.coco_writer import image_file, write
from etl.formats.image_index import ImageIndex, resolve_path, split_in_path
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.formats.text import decode, excerpt, integer

__all__ = ["SUFFIX", "categories", "image_file", "read_dataset", "resolve_images", "write"]

SUFFIX = ".json"
NO_IMAGE = ""  # file name of entries that belong to no listed image
_REQUIRED = ("images", "annotations")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_COLUMNS = ("difficult", "truncated", "occluded")
_KNOWN = frozenset(("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "track_id"))

Json = dict[str, Any]
Labels = tuple[str | None, str, ImageLabels]


def read_dataset(files: Mapping[str, bytes], images: Sequence[str]) -> Iterator[Labels]:
    """Yield (listed image, or None if it is missing; file name as written; labels), each image once, by path.

    Entries that belong to no image of their file come last, with None and the file name NO_IMAGE.
    """
    index, entries = ImageIndex(images), dict[tuple[str | None, str], _Entry]()
    for file, document in _documents(files):
        _read_document(file, document, index, entries)
    for key in sorted(entries, key=lambda key: (key == (None, NO_IMAGE), key[1], key[0] is None)):
        entry = entries[key]
        labels = ImageLabels(entry.file, tuple(entry.boxes), tuple(entry.bad), entry.declared_wh)
        yield key[0], entry.name, labels


def categories(files: Mapping[str, bytes]) -> list[str]:
    """Return the names of all declared categories, used or not, by id."""
    ids: dict[str, Any] = {}
    for file, document in _documents(files):
        for key, name in _category_names(file, document).items():
            ids.setdefault(name, key)
    return sorted(ids, key=lambda name: (isinstance(ids[name], str), ids[name], name))


def resolve_images(file: str, written: Iterable[str], index: ImageIndex) -> dict[str, str]:
    """Return the listed image of each file name: relative to the JSON file, to the root, else by the end of its path.

    Of several images whose paths end so, it is the one in the folder with most of the file's images; of several such
    folders, the one whose name has the same split as the file's name.
    """
    found: dict[str, str] = {}
    options: dict[str, dict[str, str]] = {}  # name -> folder -> image
    folder = posixpath.dirname(file)
    for name in sorted(set(written)):
        direct = index.at(resolve_path(folder, name)) or index.at(resolve_path("", name))
        tail = resolve_path("", name)
        if direct is not None:
            found[name] = direct
        elif tail is not None:
            options[name] = {image[: len(image) - len(tail)]: image for image in index.ending_with(tail)}
    votes = Counter(start for starts in options.values() for start in starts)
    for name, starts in options.items():
        most = max((votes[start] for start in starts), default=0)
        best = [start for start in starts if votes[start] == most]
        if len(best) > 1:
            best = [start for start in best if split_in_path(start) == split_in_path(file)]
        if len(best) == 1:
            found[name] = starts[best[0]]
    return found


def file_names(files: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Return the file names each JSON file lists as images."""
    return {
        file: [
            row["file_name"]
            for row in document["images"]
            if isinstance(row, dict) and isinstance(row.get("file_name"), str)
        ]
        for file, document in _documents(files)
    }


@dataclass(slots=True)
class _Entry:
    """The entries of one image, from all files."""

    file: str
    name: str  # of the image, as written
    declared_wh: tuple[int, int] | None = None
    boxes: list[LabelBox] = field(default_factory=list)
    bad: list[BadBox] = field(default_factory=list)
    sources: dict[tuple[Any, ...], tuple[str, Any]] = field(default_factory=dict)  # box -> file and image id


def _documents(files: Mapping[str, bytes]) -> list[tuple[str, Json]]:
    parsed = {file: _parse(file, files[file]) for file in sorted(files)}
    missing = {
        file: [key for key in _REQUIRED if not (isinstance(document, dict) and isinstance(document.get(key), list))]
        for file, document in parsed.items()
    }
    usable = [(file, document) for file, document in parsed.items() if not missing[file]]
    if not usable:
        found = "; ".join(
            f"{file} has no list {' and no list '.join(map(repr, keys))}" for file, keys in missing.items()
        )
        raise SourceError(f"no COCO file: {found or 'found no JSON file'}; expected lists 'images' and 'annotations'")
    return usable


def _parse(file: str, data: bytes) -> Any:
    text = decode(data)
    if text is None:
        raise SourceError(f"{file}:1: not JSON: neither UTF-8 nor marked UTF-16")
    try:
        document = json.loads(text, parse_constant=str)
        if _SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()  # fails for a lone surrogate, which no table can hold
        return document
    except json.JSONDecodeError as error:
        raise SourceError(f"{file}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # a lone surrogate, a huge number, or deep nesting
        raise SourceError(f"{file}:1: unreadable JSON: {error}") from error


def _is_id(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _category_names(file: str, document: Json) -> dict[Any, str]:
    names: dict[Any, str] = {}
    rows = document.get("categories")
    for row in rows if isinstance(rows, list) else []:
        if not (isinstance(row, dict) and _is_id(row.get("id")) and row.get("name") not in (None, "")):
            raise SourceError(f"{file}: category {excerpt(row)}, expected an id and a name")
        name = row["name"] if isinstance(row["name"], str) else json.dumps(row["name"])
        if names.setdefault(row["id"], name) != name:
            raise SourceError(
                f"{file}: category id {row['id']} is {names[row['id']]!r} and {name!r}, expected one name"
            )
    return names


def _read_document(file: str, document: Json, index: ImageIndex, entries: dict[tuple[str | None, str], _Entry]) -> None:
    names = _category_names(file, document)
    orphans: list[BadBox] = []
    rows: defaultdict[Any, dict[str, Json]] = defaultdict(dict)  # image id -> file name -> row
    for row in document["images"]:
        if (
            isinstance(row, dict)
            and _is_id(row.get("id"))
            and isinstance(row.get("file_name"), str)
            and row["file_name"]
        ):
            rows[row["id"]].setdefault(row["file_name"], row)
        else:
            orphans.append(BadBox("malformed_image", excerpt(row), "an image with id and file_name"))
    found = resolve_images(file, (name for by_name in rows.values() for name in by_name), index)

    owners: dict[Any, _Entry] = {}
    for key, by_name in rows.items():
        for name, row in by_name.items():
            path = found.get(name)
            entry = entries.setdefault((path, name if path is None else path), _Entry(file, name))
            entry.declared_wh = entry.declared_wh or _declared_wh(row)
            owners.setdefault(key, entry)
            if len(by_name) > 1:
                entry.bad.append(
                    BadBox("ambiguous_image_id", excerpt(f"id {key}: {', '.join(by_name)}"), "an id for each image")
                )
    ambiguous = {key for key, by_name in rows.items() if len(by_name) > 1}

    for annotation in document["annotations"]:
        key = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not _is_id(key) or key not in owners:
            orphans.append(BadBox("unknown_image_id", excerpt(annotation), "the id of an image in the same file"))
        elif key in ambiguous:
            owners[key].bad.append(BadBox("ambiguous_image_id", excerpt(annotation), "the id of one image"))
        else:
            _add_box(owners[key], (file, key), _read_annotation(annotation, names))
    if orphans:
        entries.setdefault((None, NO_IMAGE), _Entry(file, NO_IMAGE)).bad.extend(orphans)


def _add_box(entry: _Entry, source: tuple[str, Any], box: LabelBox | BadBox) -> None:
    """Add a box to an image; one that another file or image id has already given is a duplicate."""
    if isinstance(box, BadBox):
        entry.bad.append(box)
    elif entry.sources.setdefault((box.category, box.xyxy, box.crowd), source) == source:
        entry.boxes.append(box)
    else:
        entry.bad.append(
            BadBox("duplicate_annotation", f"{box.category} {box.xyxy}", "each box in one file, for one image id")
        )


def _declared_wh(row: Json) -> tuple[int, int] | None:
    width, height = (_whole(row.get(side)) for side in ("width", "height"))
    return (width, height) if width and height and width > 0 and height > 0 else None


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer larger than any float
        return False


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return int(value)
    return integer(value) if isinstance(value, (int, float)) and _is_number(value) else None


def _read_annotation(annotation: Json, names: Mapping[Any, str]) -> LabelBox | BadBox:
    key, bbox = annotation.get("category_id"), annotation.get("bbox")
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_number, bbox))):
        return BadBox("malformed_box", excerpt(annotation), "a bbox of four finite numbers: x, y, width, height")
    if not _is_id(key) or key not in names:
        return BadBox("unknown_category_id", excerpt(annotation), "the id of a category in the same file")
    x, y, w, h = map(float, bbox)
    if not (math.isfinite(x + w) and math.isfinite(y + h)):
        return BadBox("malformed_box", excerpt(annotation), "a bbox of four finite numbers: x, y, width, height")
    polygon, whole = _polygon(annotation.get("segmentation"))
    columns = {column: _whole(annotation.get(column)) for column in _COLUMNS}
    valid = {column for column, value in columns.items() if value is not None}
    extra = {k: v for k, v in annotation.items() if k not in _KNOWN and k not in valid}
    area, track = annotation.get("area"), annotation.get("track_id")
    return LabelBox(
        names[key],
        (x, y, x + w, y + h),
        empty=w <= 0 or h <= 0,
        crowd=bool(_whole(annotation.get("iscrowd"))),
        ignore=bool(_whole(annotation.get("ignore"))),
        difficult=columns["difficult"] or 0,
        truncated=columns["truncated"] or 0,
        occluded=columns["occluded"] or 0,
        area=float(area) if area is not None and _is_number(area) else None,
        polygon=polygon,
        track_id=None if track is None else str(track),
        extra=extra if whole is None else {**extra, "segmentation": whole},
    )


def _polygon(segmentation: Any) -> tuple[tuple[float, ...] | None, Any]:
    """Return the first polygon, and the whole segmentation if it is more than that: several polygons or a mask."""
    if not segmentation:
        return None, None
    if not isinstance(segmentation, list):
        return None, segmentation
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    first = polygons[0]
    if len(first) < 6 or len(first) % 2 or not all(map(_is_number, first)):
        return None, segmentation
    return tuple(map(float, first)), segmentation if len(polygons) > 1 else None
