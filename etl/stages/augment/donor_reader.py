"""The donors of a part's images: their rows, boxes and, read when needed, their pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.imaging.codec import Pixels
from etl.stages.augment.donors import PER_SET, Donors
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.image_annotations import AnnotatedImages
from etl.stages.rows import AnnotationRow, ImageRow


@dataclass(frozen=True)
class DonorTables:
    """The sets of donors of some images by image id, and the rows of these donors alone."""

    donors: Donors
    images: pa.Table
    annotations: pa.Table


def select_donors(
    donors: Donors, images: pa.Table, all_images: pa.Table, boxes_of: Callable[[pa.Table], pa.Table]
) -> DonorTables:
    """Return the donors of `images` with their rows of all images; `boxes_of` returns the usable boxes of images."""
    selected = {image: donors[image] for image in images["image_id"].to_pylist() if image in donors}
    lending = {name for sets in selected.values() for names in sets for name in names}
    names = pa.array(sorted(lending), pa.string())
    lenders = all_images.filter(pc.is_in(all_images["image_id"], names))
    return DonorTables(selected, lenders, boxes_of(lenders))


class DonorReader:
    """Gives the donors of one image after the other."""

    def __init__(self, tables: DonorTables, read: Callable[[ImageRow], Pixels]) -> None:
        """`read` returns the pixels of an image; it is called when a donor is first used."""
        self._donors = tables.donors
        annotated = self._annotated = AnnotatedImages(tables.images, tables.annotations)

        @lru_cache(maxsize=PER_SET)
        def pixels(image: str) -> Pixels:
            return read(annotated[image].image)  # no reference to `self`: the cache would keep it alive

        self._pixels = pixels

    def rows(self, image: str, number: int) -> list[AnnotationRow]:
        """Return the annotations of the donors in a set of an image, in the order in which `images` numbers them."""
        return [row for name in self._set(image, number) for row in self._annotated[name].rows]

    def sides(self, image: str, number: int) -> NDArray[np.float64]:
        """Return the side lengths [N] of `rows`, in source pixels, clipped to their images."""
        return np.concatenate([np.zeros(0), *(self._annotated[name].sides for name in self._set(image, number))])

    def images(self, image: str, number: int, first: int) -> list[Callable[[], LabelledImage]]:
        """Return the donors in a set of an image, each read when first called, their boxes numbered from `first`."""
        donors: list[Callable[[], LabelledImage]] = []
        for name in self._set(image, number):
            donors.append(cache(partial(self._image, name, first)))
            first += len(self._annotated[name].rows)
        return donors

    def _set(self, image: str, number: int) -> Sequence[str]:
        sets = self._donors.get(image, ())
        return sets[number] if number < len(sets) else ()

    def _image(self, name: str, first: int) -> LabelledImage:
        annotated = self._annotated[name]
        return LabelledImage(name, self._pixels(name), annotated.boxes, annotated.ignore, first)
