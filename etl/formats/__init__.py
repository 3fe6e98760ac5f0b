"""Label files of the field's formats, read into plain boxes and written from tables.

`read_label` (one file per image: yolo, voc, visdrone, dota) and `read_dataset` (files that list their images: coco, or
a function of the user's own) are the two kinds of reader; both return `ImageLabels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from etl.errors import ConfigError
from etl.formats import coco, custom, dota, visdrone, voc, yolo
from etl.formats.labels import ImageLabels


@runtime_checkable
class LabelFormat(Protocol):
    """A format with one label file per image."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802 - modules name it as the constant it is
        """The end of its files' names, in lower case."""

    def is_label(self, data: bytes) -> bool:
        """Return whether a file with this suffix looks like labels at all."""

    def read_label(self, data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
        """Return what the file says of an image of this upright size; names are the categories by id."""


@runtime_checkable
class DatasetFormat(Protocol):
    """A format whose files list their images."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802 - modules name it as the constant it is
        """The end of its files' names; empty when any file may be one."""

    def read_dataset(
        self, files: Mapping[str, bytes], images: Sequence[str]
    ) -> Iterator[tuple[str | None, str, ImageLabels]]:
        """Yield listed image or None, file name as written, and labels; every image at most once."""


class Writer(Protocol):
    """A format that can be written."""

    def image_file(self, name: str, split: str | None) -> str:
        """Return where an image of this name (see layout.image_names) belongs in the written dataset."""

    def write(self, out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
        """Write the label files into a folder and return their paths."""


_PER_IMAGE: dict[str, LabelFormat] = {"yolo": yolo, "voc": voc, "visdrone": visdrone, "dota": dota}
_WRITERS: dict[str, Writer] = {"yolo": yolo, "coco": coco, "voc": voc, "visdrone": visdrone, "dota": dota}


def reader(name: str) -> LabelFormat | DatasetFormat:
    """Return the reader of a `source.format`; ConfigError when there is none."""
    if name in _PER_IMAGE:
        return _PER_IMAGE[name]
    if name == "coco":
        return coco
    if ":" in name:
        return custom.load(name)
    known = ", ".join([*_PER_IMAGE, "coco"])
    raise ConfigError("", "source.format", repr(name), f"one of {known} or package.module:function")


def writer(name: str) -> Writer:
    """Return the writer of a format; ConfigError when there is none."""
    if name not in _WRITERS:
        raise ConfigError("format", "", repr(name), f"one of {', '.join(_WRITERS)}")
    return _WRITERS[name]
