"""Rows of the tables `images` and `annotations` (see `etl.schema`), as typed dictionaries."""

from __future__ import annotations

from typing import TypedDict


class ImageFileRow(TypedDict):
    """The columns that an image file decides alone."""

    image_id: str
    path: str
    sha256: str
    width: int
    height: int
    format: str
    exif_orientation: int
    exif_applied: bool
    phash: int | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None


class IngestedImageRow(ImageFileRow):
    """A row of `images` before the split."""

    labelled: bool


class ImageRow(IngestedImageRow):
    """A row of `images` after the split."""

    group: str
    sequence: str
    frame: int | None
    split: str


class AnnotationRow(TypedDict):
    """A row of `annotations`."""

    annotation_id: str
    image_id: str
    category: str
    x0: float
    y0: float
    x1: float
    y1: float
    crowd: bool
    ignore: bool
    difficult: int | None
    truncated: int | None
    occluded: int | None
    area: float
    polygon: list[float] | None
    track_id: str | None
    extra: str | None
    file: str
    line: int | None
    source_id: str | None
