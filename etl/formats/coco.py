"""COCO JSON: files that list images, annotations and categories, joined by ids."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from etl.errors import SourceError
from etl.formats import coco_join
from etl.formats.coco_content import Skipped, read_content
from etl.formats.coco_document import Piece
from etl.formats.coco_writer import image_file, write
from etl.formats.image_index import ImageIndex
from etl.formats.image_names import NameRules
from etl.formats.label_table import LABELS, to_labels
from etl.formats.labels import BadBox, ImageLabels
from etl.numbers import count_of

__all__ = ["SUFFIX", "categories", "image_file", "read_dataset", "read_tables", "write"]

SUFFIX = ".json"
NO_IMAGE = coco_join.NO_IMAGE
_SHOWN = 3  # files that an error names

Labels = tuple[str | None, str, ImageLabels]
Track = Callable[[Iterable[Piece], str, int], Iterable[Piece]]  # reports progress: pieces, file, characters in all


@dataclass(frozen=True)
class CocoLabels:
    """What a set of COCO files says, and how it was read."""

    labels: pa.Table = field(default_factory=LABELS.empty_table)  # of LABELS, by image
    categories: tuple[str, ...] = ()  # declared, used or not, by id
    roots: frozenset[str] = frozenset()  # categories that are the supercategory of all others in their file
    ways: Mapping[str, int] = field(default_factory=dict)  # how many names were matched in each way
    skipped: tuple[Skipped, ...] = ()  # files without boxes
    repeated: Mapping[str, int] = field(default_factory=dict)  # boxes of keypoint files that other files hold too
    as_text: Mapping[str, int] = field(default_factory=dict)  # boxes with ids, numbers or flags of another type
    bad_categories: tuple[tuple[str, BadBox], ...] = ()  # file, and why a category entry is not read


def read_tables(
    files: Mapping[str, bytes],
    images: Sequence[str],
    rules: NameRules | None = None,
    names: Sequence[str] | None = None,
    track: Track | None = None,
) -> CocoLabels:
    """Return the labels in a set of COCO files, each of which is parsed once.

    `names` are the categories by id for a file that has none of its own. SourceError if no file is a COCO file, or if
    one has boxes that cannot be read as a whole.
    """
    index = ImageIndex(images)
    documents, skipped = [], []
    for file in sorted(files):
        with _paused_collection():
            content = read_content(file, files[file], track)
            if isinstance(content, Skipped):
                skipped.append(content)
            else:
                documents.append(coco_join.join(file, content, index, rules or NameRules(), names))
    if not documents:
        raise SourceError(_no_file(skipped))
    labels, repeated = coco_join.merge(documents)
    ways: dict[str, int] = {}
    for document in documents:
        for way, count in document.ways.items():
            ways[way] = ways.get(way, 0) + count
    return CocoLabels(
        labels,
        _sorted_names(document.categories for document in documents),
        frozenset(document.root for document in documents if document.root is not None),
        ways,
        tuple(skipped),
        repeated,
        {document.file: document.as_text for document in documents if document.as_text},
        tuple((document.file, bad) for document in documents for bad in document.bad_categories),
    )


def read_dataset(files: Mapping[str, bytes], images: Sequence[str]) -> Iterator[Labels]:
    """Yield (listed image, or None if it is missing; file name as written; labels), each image once, by path.

    Entries that belong to no image of their file come last, with None and the file name NO_IMAGE.
    """
    labels = to_labels(read_tables(files, images).labels)
    for _, group in groupby(labels, key=lambda entry: (entry[0], entry[1] if entry[0] is None else None)):
        members = list(group)
        path, name, first = members[0]
        entries = [entry for _, _, entry in members]
        boxes = tuple(box for entry in entries for box in entry.boxes)
        bad = tuple(box for entry in entries for box in entry.bad)
        declared = next((entry.declared_wh for entry in entries if entry.declared_wh is not None), None)
        yield path, name, ImageLabels(first.file, boxes, bad, declared)


def categories(files: Mapping[str, bytes]) -> list[str]:
    """Return the names of all declared categories, used or not, by id."""
    return list(read_tables(files, ()).categories)


def images_of_files(labels: pa.Table) -> dict[str, set[str]]:
    """Return the listed images of each label file."""
    found: dict[str, set[str]] = {}
    for file, path in zip(labels["file"].to_pylist(), labels["path"].to_pylist(), strict=True):
        if path is not None:
            found.setdefault(file, set()).add(path)
    return found


@contextmanager
def _paused_collection() -> Iterator[None]:
    """Pause the search for cyclic garbage: parsed JSON has no cycles, and the search takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _sorted_names(declared: Iterable[Mapping[Any, str]]) -> tuple[str, ...]:
    ids: dict[str, Any] = {}
    for names in declared:
        for key, name in names.items():
            ids.setdefault(name, key)
    return tuple(sorted(ids, key=lambda name: (isinstance(ids[name], str), ids[name], name)))


def _no_file(skipped: Sequence[Skipped]) -> str:
    found = "; ".join(f"{row.file} {row.reason}" for row in skipped[:_SHOWN])
    more = f"; and {count_of(len(skipped) - _SHOWN, 'more file')}" if len(skipped) > _SHOWN else ""
    expected = "expected lists 'images' and 'annotations', with boxes"
    return f"no COCO file: {found or 'found no JSON file'}{more}; {expected}"
