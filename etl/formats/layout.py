"""Name and place the images and label files of a written dataset."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from etl.errors import SourceError


@dataclass(frozen=True, slots=True)
class Placed:
    """An image to write labels for: its row of the table images, its name in the written dataset, and its boxes."""

    row: Mapping[str, Any]
    name: str  # posix, relative to the folder of its split
    boxes: tuple[Mapping[str, Any], ...]  # rows of annotations, by annotation_id

    @property
    def split(self) -> str | None:
        """The split of the image, None if it has none."""
        split: str | None = self.row["split"]
        return split

    @property
    def labelled(self) -> bool:
        """Whether the image gets a label file: it had one, or it has boxes."""
        return bool(self.boxes) or self.row["labelled"] is not False


def image_names(paths: Mapping[str, str]) -> dict[str, str]:
    """Return a file name for each image_id; no two of them share a label file, even if letter case is ignored.

    The plain file name where its stem is unique, else the relative path, else the name with the image_id added.
    """
    places = {image_id: _check(path) for image_id, path in paths.items()}
    plain = Counter(path.stem.casefold() for path in places.values())
    # Trainers replace the last folder called `images` to find a label: no folder below it may have this name.
    nested = {
        image_id: PurePosixPath(*(f"{part}_" if part == "images" else part for part in path.parent.parts), path.name)
        for image_id, path in places.items()
    }
    full = Counter(str(path.with_suffix("")).casefold() for path in nested.values())
    names = {}
    for image_id, path in places.items():
        deep = nested[image_id]
        if plain[path.stem.casefold()] == 1:
            names[image_id] = path.name
        elif full[str(deep.with_suffix("")).casefold()] == 1:
            names[image_id] = str(deep)
        else:
            names[image_id] = str(deep.with_stem(f"{deep.stem}_{image_id}"))
    return names


def place_images(images: pa.Table, annotations: pa.Table) -> list[Placed]:
    """Return every image with its name and boxes, by path."""
    rows = sorted(images.to_pylist(), key=lambda row: str(row["path"]))
    names = image_names({row["image_id"]: row["path"] for row in rows})
    boxes: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for box in sorted(annotations.to_pylist(), key=lambda row: str(row["annotation_id"])):
        boxes[box["image_id"]].append(box)
    return [Placed(row, names[row["image_id"]], tuple(boxes[row["image_id"]])) for row in rows]


class _CategoryIndex(dict[str, int]):
    def __missing__(self, name: str) -> int:
        raise SourceError(f"category {name!r} is not among those to write: {', '.join(self)}")


def category_index(categories: Sequence[str]) -> dict[str, int]:
    """Return the index of each category; looking up any other raises SourceError."""
    return _CategoryIndex((name, index) for index, name in enumerate(categories))


def load_extra(box: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `extra` of a row of annotations."""
    extra: dict[str, Any] = json.loads(box["extra"]) if box["extra"] else {}
    return extra


def write_text(path: Path, text: str) -> Path:
    """Write a text file as UTF-8 with LF line ends and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _check(path: str) -> PurePosixPath:
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts:
        raise SourceError(f"image path {path!r} leaves the source folder")
    return place
