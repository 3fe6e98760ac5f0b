"""The content of one COCO document: its images, annotations and categories, or why it holds no boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from etl.errors import SourceError
from etl.formats.coco_columns import Annotations
from etl.formats.coco_document import Piece, decode_json, read_pieces
from etl.formats.coco_images import ImageRow, read_images
from etl.formats.labels import BadBox
from etl.numbers import count_of

_REQUIRED = ("images", "annotations")
_OF_BOXES = frozenset(("bbox", "image_id", "category_id", "segmentation"))  # keys of an annotation
_OF_IMAGES = frozenset(("file_name", "coco_url"))
_WITHOUT_BOXES = {
    "caption": "holds captions, no boxes",
    "segments_info": "holds panoptic segments, no boxes",
    "keypoints": "holds keypoints without boxes",
}


class Skipped(NamedTuple):
    """A file without images and annotations as COCO has them, or without boxes."""

    file: str
    reason: str  # what it is or lacks, as the end of a sentence that starts with the file
    holds_boxes: bool = False  # in another form


@dataclass
class Content:
    """The lists of a COCO document."""

    images: list[ImageRow] = field(default_factory=list)
    unnamed: list[BadBox] = field(default_factory=list)  # image entries without id or name
    annotations: Annotations = field(default_factory=Annotations)
    categories: list[Any] | None = None  # None: the document has no such list


def read_content(
    file: str, data: bytes, track: Callable[[Iterable[Piece], str, int], Iterable[Piece]] | None = None
) -> Content | Skipped:
    """Return the lists of a document, or why it is skipped.

    SourceError if it is not JSON, or if it holds boxes but not under the keys of COCO.
    """
    text = decode_json(file, data)
    del data
    pieces: Iterable[Piece] = read_pieces(file, text)
    if track is not None:
        pieces = track(pieces, file, len(text))
    content, lists, samples = Content(), set[str](), dict[str, Any]()
    for key, rows, start, _ in pieces:
        if rows is None:
            if key in _REQUIRED:
                raise SourceError(f"{file}: {key!r} is not a list, expected a list of objects")
            continue
        lists.add(key)
        if key == "images":
            images, unnamed = read_images(rows, start)
            content.images += images
            content.unnamed += unnamed
        elif key == "annotations":
            content.annotations.add(rows)
        elif key == "categories":
            content.categories = [*(content.categories or ()), *rows]
        elif start == 0 and rows:
            samples[key] = rows[0]
    missing = [key for key in _REQUIRED if key not in lists]
    _check_keys(file, content, missing, samples)
    if missing:
        if text.lstrip().startswith("[") and '"score"' in text:
            return Skipped(file, "holds detections of a model")
        reason = f"has no list {' and no list '.join(map(repr, missing))}"
        return Skipped(file, reason, holds_boxes='"bbox"' in text)
    return _without_boxes(file, content.annotations) or content


def _check_keys(file: str, content: Content, missing: Sequence[str], samples: dict[str, Any]) -> None:
    """Raise SourceError if boxes or images stand under another key."""
    for key, wanted in (("annotations", _OF_BOXES), ("images", _OF_IMAGES)):
        if key in missing or (key == "annotations" and not content.annotations.count):
            other = next((name for name, row in samples.items() if isinstance(row, dict) and wanted & row.keys()), None)
            if other is not None:
                absent = f"no list {key!r}" if key in missing else f"an empty list {key!r}"
                raise SourceError(f"{file} has {absent}, but a list {other!r} of such entries: rename it to {key!r}")
    if "images" in missing and (number := content.annotations.count) > content.annotations.without_box:
        raise SourceError(f"{file} has {count_of(number, 'annotation')} but no list 'images' that names their images")


def _without_boxes(file: str, annotations: Annotations) -> Skipped | None:
    if not annotations.count or annotations.without_box < annotations.count:
        return None
    kind = next((key for key in _WITHOUT_BOXES if annotations.kinds[key] == annotations.count), None)
    return None if kind is None else Skipped(file, _WITHOUT_BOXES[kind])
