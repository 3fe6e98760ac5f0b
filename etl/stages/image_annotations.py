"""An image with its annotations: the rows of both, and the boxes as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes as bx
from etl.columns import find_places, group_rows
from etl.stages.rows import AnnotationRow, ImageRow

_KEPT = 64  # images


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


class AnnotatedImages(Mapping[str, ImageAnnotations]):
    """The images of a table with their annotations by image_id, in the order of the images.

    Their rows are made when an image is taken, and kept for a few images.
    """

    def __init__(self, images: pa.Table, annotations: pa.Table) -> None:
        self._place = {name: place for place, name in enumerate(images["image_id"].to_pylist())}
        order, starts = group_rows(find_places(annotations["image_id"], images["image_id"]), images.num_rows)

        @lru_cache(maxsize=_KEPT)
        def read(place: int) -> ImageAnnotations:  # no reference to `self`: the cache would keep it alive
            (image,) = images.slice(place, 1).to_pylist()
            rows = pa.array(order[starts[place] : starts[place + 1]])
            return ImageAnnotations(image, annotations.take(rows).to_pylist())

        self._read = read

    def __getitem__(self, name: str) -> ImageAnnotations:
        return self._read(self._place[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)


def boxes_of(images: pa.Table, annotations: pa.Table) -> pa.Table:
    """Return the rows of `annotations` whose image is one of `images`."""
    return annotations.filter(pc.is_in(annotations["image_id"], images["image_id"].combine_chunks()))
