"""An image with its annotations: the rows of both, and the boxes as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes as bx
from etl.stages.rows import AnnotationRow, ImageRow


@dataclass(frozen=True)
class ImageAnnotations:
    """An image of the dataset and its annotations, in the order of their rows."""

    image: ImageRow
    rows: Sequence[AnnotationRow]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the upright image."""
        return self.image["width"], self.image["height"]

    @cached_property
    def boxes(self) -> bx.Boxes:
        """The boxes [N, 4] in source pixels, as annotated."""
        return bx.from_rows(self.rows)

    @cached_property
    def ignore(self) -> NDArray[np.bool_]:
        """Which boxes [N] are not labels."""
        return np.array([row["ignore"] for row in self.rows], dtype=bool)

    @cached_property
    def sides(self) -> NDArray[np.float64]:
        """The side lengths sqrt(w * h) of the boxes [N], clipped to the image."""
        return bx.side_length(bx.clip(self.boxes, (0, 0, *self.size_wh)))


def by_image(images: pa.Table, annotations: pa.Table) -> dict[str, ImageAnnotations]:
    """Return each image of the table with its annotations, by image_id, in the order of the images."""
    rows: dict[str, list[AnnotationRow]] = {}
    for row in annotations.to_pylist():
        rows.setdefault(row["image_id"], []).append(row)
    return {image["image_id"]: ImageAnnotations(image, rows.get(image["image_id"], [])) for image in images.to_pylist()}
