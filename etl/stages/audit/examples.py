"""The images and boxes that the audit page shows of each finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.columns import count_values
from etl.findings import Finding
from etl.numbers import count_of

PER_FINDING = 4  # pictures
MOST = 80  # pictures of all findings
FULLEST = 3  # images with the most boxes
TWO_READINGS = "unknown_rotation"  # finding whose images are shown rotated and as stored

Row = Mapping[str, Any]  # of the images or annotations table


@dataclass(frozen=True, eq=False)
class Example:
    """A picture to draw: an image, or one of its boxes with the surroundings."""

    code: str  # of the finding; empty of an image with many boxes, and of an example of a class
    caption: str
    image: Row
    box: Row | None = None


class _Location(NamedTuple):
    image: Row
    box: Row | None


def choose_examples(findings: Sequence[Finding], images: pa.Table, annotations: Iterable[pa.Table]) -> list[Example]:
    """Return examples of each finding, in rounds: the first of every finding, then the second of every finding.

    They are the images and boxes that its files name, those of other images first. A label file stands for its image.
    `annotations` are the boxes as written, piece by piece.
    """
    wanted = {file for row in findings for file in row.files}
    named = _Named.search(wanted, images, annotations)
    locations, boxes_of_image = _locate(wanted, images, named), named.boxes_of_image
    of_findings = [
        [_example(row.code, location, boxes_of_image) for location in _spread(row.files, locations)] for row in findings
    ]
    rounds = zip_longest(*(examples[:PER_FINDING] for examples in of_findings))
    return [example for each in rounds for example in each if example is not None][:MOST]


def fullest_images(images: pa.Table, boxes: Iterable[pa.Table]) -> list[Example]:
    """Return the images with the most boxes, which come in pieces, as examples of no finding."""
    boxes_of_image: Counter[str] = Counter()
    for piece in boxes:
        boxes_of_image.update(count_values(piece["image_id"]))
    ids = images["image_id"].to_pylist()
    paths = images["path"].to_pylist()
    order = sorted(range(len(ids)), key=lambda row: (-boxes_of_image[ids[row]], paths[row]))
    rows = images.take(pa.array(order[:FULLEST], pa.int64())).to_pylist()
    return [_example("", _Location(row, None), boxes_of_image) for row in rows]


def _example(code: str, location: _Location, boxes_of_image: Mapping[str, int]) -> Example:
    image, box = location
    if box is None:
        number = boxes_of_image.get(image["image_id"], 0)
        reading = "; left: rotated, right: as stored" if code == TWO_READINGS else ""
        return Example(code, f"{image['path']}: {count_of(number, 'box')}{reading}", image)
    size = f"{box['x1'] - box['x0']:.4g} x {box['y1'] - box['y0']:.4g} px"
    where = schema.place(box["file"], box["line"], image["path"], box["source_id"])
    return Example(code, f"{box['category']}, {size}, {where}", image, box)


def _spread(files: Iterable[str], locations: Mapping[str, _Location]) -> list[_Location]:
    """Return the locations of the files, the first of each image before the others."""
    named = [locations[file] for file in files if file in locations]
    first = {location.image["image_id"]: location for location in reversed(named)}
    return sorted(named, key=lambda location: first[location.image["image_id"]] is not location)


@dataclass(frozen=True)
class _Named:
    """What is named among the boxes of a source."""

    boxes: dict[str, Row]  # by place
    image_of_file: dict[str, str | None]  # image_id by label file; None for a file of several images
    boxes_of_image: Counter[str]  # of every image

    @classmethod
    def search(cls, wanted: Collection[str], images: pa.Table, annotations: Iterable[pa.Table]) -> _Named:
        """Search for boxes and label files by their places."""
        named, places = cls({}, {}, Counter()), pa.array(sorted(wanted), pa.string())
        for piece in annotations:
            named.boxes_of_image.update(count_values(piece["image_id"]))
            of_boxes = _places(images, piece)
            chosen = pc.is_in(of_boxes, value_set=places)
            for place, row in zip(of_boxes.filter(chosen).to_pylist(), piece.filter(chosen).to_pylist(), strict=True):
                named.boxes.setdefault(place, row)
            in_files = piece.filter(pc.is_in(piece["file"], value_set=places))
            for row in in_files.group_by(["file", "image_id"]).aggregate([]).to_pylist():
                if named.image_of_file.setdefault(row["file"], row["image_id"]) != row["image_id"]:
                    named.image_of_file[row["file"]] = None
        return named


def _locate(places: Collection[str], images: pa.Table, named: _Named) -> dict[str, _Location]:
    """Return, by place, the image or the box that it names; other places lack."""
    rows = images.filter(pc.is_in(images["path"], value_set=pa.array(sorted(places), pa.string()))).to_pylist()
    locations = {row["path"]: _Location(row, None) for row in rows}
    files = {
        file: image
        for file, image in named.image_of_file.items()
        if image is not None and file not in locations and file not in named.boxes
    }
    ids = pa.array(sorted({*(row["image_id"] for row in named.boxes.values()), *files.values()}), pa.string())
    by_id = {row["image_id"]: row for row in images.filter(pc.is_in(images["image_id"], value_set=ids)).to_pylist()}
    for place, box in named.boxes.items():
        locations.setdefault(place, _Location(by_id[box["image_id"]], box))
    return locations | {file: _Location(by_id[name], None) for file, name in files.items() if name in by_id}


def _places(images: pa.Table, annotations: pa.Table) -> pa.ChunkedArray:
    """Return what `schema.place` returns of each box."""
    paths = images["path"].take(pc.index_in(annotations["image_id"], value_set=images["image_id"].combine_chunks()))
    file, line, number = (annotations[name] for name in ("file", "line", "source_id"))
    by_line = pc.binary_join_element_wise(file, line.cast(pa.string()), ":")
    by_id = pc.binary_join_element_wise(file, ": ", paths, " #", number, "")
    return pc.coalesce(by_line, by_id)
