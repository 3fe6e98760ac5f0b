"""Label formats: each reads label files into `ImageLabels` and writes them from tables.

There are two kinds of reader: `read_label` for one file per image (yolo, voc, visdrone, dota), `read_dataset` for files
that list their images (coco, or a function of the user's own).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from etl.errors import ConfigError
from etl.formats import coco, custom, dota, visdrone, voc, yolo, yolo_pose
from etl.formats.labels import ImageLabels


@runtime_checkable
class LabelFormat(Protocol):
    """A format with one label file per image."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802 - a constant of the modules
        """The extension of its files, in lower case."""

    def is_label(self, data: bytes) -> bool:
        """Return whether a file with this extension looks like a label file."""

    def read_label(self, data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
        """Return the labels of an image of this upright size (width, height); `names` are the categories by id."""


@runtime_checkable
class DatasetFormat(Protocol):
    """A format whose files list their images."""

    @property
    def SUFFIX(self) -> str:  # noqa: N802 - a constant of the modules
        """The extension of its files; empty if any file may be one."""

    def read_dataset(
        self, files: Mapping[str, bytes], images: Sequence[str]
    ) -> Iterator[tuple[str | None, str, ImageLabels]]:
        """Yield (listed image, or None if it is not listed; file name as written; labels), each image at most once."""


class Writer(Protocol):
    """A format that can be written."""

    def image_file(self, name: str, split: str | None) -> str:
        """Return where an image of this name (see layout.image_names) belongs in the written dataset."""

    def write(self, out: Path, images: pa.Table, annotations: pa.Table, categories: Sequence[str]) -> list[Path]:
        """Write the label files into a folder and return their paths."""


_PER_IMAGE: dict[str, LabelFormat] = {"yolo": yolo, "voc": voc, "visdrone": visdrone, "dota": dota}
_WRITERS: dict[str, Writer] = {"yolo": yolo, "coco": coco, "voc": voc, "visdrone": visdrone, "dota": dota}


def get_reader(name: str, dataset: str = "", kpt_shape: tuple[int, int] | None = None) -> LabelFormat | DatasetFormat:
    """Return the reader of a `source.format`; ConfigError, naming the dataset, if there is none.

    `kpt_shape` is that of YOLO rows with keypoints, see `keypoints`.
    """
    if name == "yolo" and kpt_shape is not None:
        return yolo_pose.PoseReader(kpt_shape)
    if name in _PER_IMAGE:
        return _PER_IMAGE[name]
    if name == "coco":
        return coco
    if ":" in name:
        return custom.load_reader(name, dataset)
    known = ", ".join([*_PER_IMAGE, "coco"])
    raise ConfigError(dataset, "source.format", repr(name), f"one of {known} or package.module:function")


def get_writer(name: str) -> Writer:
    """Return the writer of a format; ConfigError if there is none."""
    if name not in _WRITERS:
        raise ConfigError("format", "", repr(name), f"one of {', '.join(_WRITERS)}")
    return _WRITERS[name]
