"""YOLO txt with keypoints: rows of a box and the keypoints that `kpt_shape` of data.yaml declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etl.formats import yolo
from etl.formats.labels import ImageLabels


@dataclass(frozen=True)
class PoseReader:
    """The reader of YOLO labels with `kpt_shape: [points, numbers of each]`."""

    kpt_shape: tuple[int, int]
    SUFFIX = yolo.SUFFIX

    def is_label(self, data: bytes) -> bool:
        """Return whether a txt file looks like labels, as for rows without keypoints."""
        return yolo.is_label(data)

    def read_label(self, data: bytes, file: str, wh: tuple[int, int], names: Sequence[str] | None) -> ImageLabels:
        """Return the labels of an image of size `wh`; keypoints are kept in `extra`, in its pixels."""
        return yolo.read_label(data, file, wh, names, self.kpt_shape)
